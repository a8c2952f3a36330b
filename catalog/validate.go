package catalog

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"glanced/catalog/fields"
	"glanced/catalog/rules"
)

// maxMetadata is what an image's name, owner, tags and properties may have together,
// bytes. Glance bounds each by itself, which comes to 8 MiB an image: records of that
// size make lists that no memory budget holds.
const maxMetadata = 256 << 10

// metadataBytes is the length of what users write into a record, bytes; words out of a
// few are not counted.
func metadataBytes(img *Image) (n int) {
	for _, f := range fields.All() {
		if f.Edited() && f.Base() && f.Words == nil && (f.Kind == fields.Text || f.Kind == fields.List) {
			v := f.Of(img)
			n += len(v.Text)
			for _, s := range v.List {
				n += len(s)
			}
		}
	}
	for name, value := range img.Properties {
		n += len(name) + len(value)
	}
	return n
}

// validate checks all that a user may set. before is the metadataBytes that the image
// has already: one that came to too many when there was no limit may keep them. Any valid UTF-8 is taken, characters
// beyond the basic plane too (Glance refuses those, for the sake of MySQL's old utf8).
func validate(img *Image, before int) error {
	for _, f := range fields.All() {
		if !f.Writable() || !f.Base() {
			continue
		}
		if err := check(f, f.Of(img)); err != nil {
			return err
		}
	}
	if err := checkProperties(img.Properties); err != nil {
		return err
	}
	if n := metadataBytes(img); n > maxMetadata && n > before {
		return fmt.Errorf("%w: its name, owner, tags and properties have %d bytes together, at most %d are allowed", ErrMetadata, n, maxMetadata)
	}
	return nil
}

// check checks the value of one field.
func check(f *fields.Field, v fields.Value) error {
	switch {
	case v.Null:
	case f.Kind == fields.Integer:
		if v.Int < 0 || v.Int > f.Max {
			return invalid(f.Name, "%d is not between 0 and %d", v.Int, f.Max)
		}
	case f.Kind == fields.List:
		if len(v.List) > f.MaxItems {
			return invalid(f.Name, "%d %s, at most %d are allowed", len(v.List), f.Name, f.MaxItems)
		}
		for _, s := range v.List {
			if err := text(f.Name, s, f.MaxLength); err != nil {
				return err
			}
		}
	case f.Kind == fields.Text && f.Words != nil:
		if !slices.Contains(f.Words, v.Text) {
			return invalid(f.Name, "%q is not one of %s", rules.Clip(v.Text), strings.Join(f.Words, ", "))
		}
	case f.Kind == fields.Text && !f.Matches(v.Text):
		return invalid(f.Name, "%q is not %s", rules.Clip(v.Text), f.Shape)
	case f.Kind == fields.Text && f.MaxLength > 0:
		return text(f.Name, v.Text, f.MaxLength)
	}
	return nil
}

func checkProperties(properties map[string]string) error {
	if n := len(properties); n > fields.MaxProperties {
		return invalid("properties", "%d properties, at most %d are allowed", n, fields.MaxProperties)
	}
	for name, value := range properties {
		if name == "" {
			return invalid("properties", "a property needs a name")
		}
		if err := text("a property's name", name, fields.MaxPropertyName); err != nil {
			return err
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return invalid(name, "the value is not text in UTF-8")
		}
		if len(value) > fields.MaxPropertyValue {
			return invalid(name, "the value has %d bytes, at most %d are allowed", len(value), fields.MaxPropertyValue)
		}
	}
	return nil
}

func invalid(field, why string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, field, fmt.Sprintf(why, args...))
}

// text checks one line of user text: UTF-8 without NUL, at most limit characters.
func text(field, value string, limit int) error {
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return invalid(field, "not text in UTF-8")
	}
	if n := utf8.RuneCountInString(value); n > limit {
		return invalid(field, "%q is too long: %d characters, at most %d are allowed", rules.Clip(value), n, limit)
	}
	return nil
}
