package catalog

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"glanced/catalog/access"
	"glanced/catalog/rules"
)

// Glance's words, in the order of its schema.
var (
	ContainerFormats = []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
	DiskFormats      = []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
	Visibilities     = access.Visibilities
)

// Limits of what users write. Glance counts characters, not bytes; so do we.
const (
	maxName          = 255
	maxOwner         = 255
	maxTag           = 255
	maxTags          = 128
	maxPropertyName  = 255
	maxPropertyValue = 65535 // bytes: a TEXT column of MySQL, as in Glance
	maxProperties    = 128
	maxMinimum       = math.MaxInt32 // min_disk, min_ram

	// maxMetadata is what an image's name, owner, tags and properties may have together,
	// bytes. Glance bounds each by itself, which comes to 8 MiB an image: records of that
	// size make lists that no memory budget holds.
	maxMetadata = 256 << 10
)

// metadataBytes is the length of what users write into a record, bytes.
func metadataBytes(img *Image) int {
	n := len(img.Owner)
	if img.Name != nil {
		n += len(*img.Name)
	}
	for name, value := range img.Properties {
		n += len(name) + len(value)
	}
	for _, tag := range img.Tags {
		n += len(tag)
	}
	return n
}

// validate checks all that a user may set. before is the metadataBytes that the image
// has already: one that came to too many when there was no limit may keep them. Any valid UTF-8 is taken, characters
// beyond the basic plane too (Glance refuses those, for the sake of MySQL's old utf8).
func validate(img *Image, before int) error {
	if !rules.IsID(img.ID) {
		return invalid("id", "%q is not a UUID", rules.Clip(img.ID))
	}
	if img.Name != nil {
		if err := text("name", *img.Name, maxName); err != nil {
			return err
		}
	}
	if err := text("owner", img.Owner, maxOwner); err != nil {
		return err
	}
	if err := word("visibility", &img.Visibility, Visibilities); err != nil {
		return err
	}
	if err := word("disk_format", img.DiskFormat, DiskFormats); err != nil {
		return err
	}
	if err := word("container_format", img.ContainerFormat, ContainerFormats); err != nil {
		return err
	}
	for _, m := range []struct {
		name  string
		value int64
	}{{"min_disk", img.MinDisk}, {"min_ram", img.MinRAM}} {
		if m.value < 0 || m.value > maxMinimum {
			return invalid(m.name, "%d is not between 0 and %d", m.value, maxMinimum)
		}
	}
	if len(img.Tags) > maxTags {
		return invalid("tags", "%d tags, at most %d are allowed", len(img.Tags), maxTags)
	}
	for _, tag := range img.Tags {
		if err := text("tags", tag, maxTag); err != nil {
			return err
		}
	}
	if len(img.Properties) > maxProperties {
		return invalid("properties", "%d properties, at most %d are allowed", len(img.Properties), maxProperties)
	}
	for name, value := range img.Properties {
		if name == "" {
			return invalid("properties", "a property needs a name")
		}
		if err := text("a property's name", name, maxPropertyName); err != nil {
			return err
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return invalid(name, "the value is not text in UTF-8")
		}
		if len(value) > maxPropertyValue {
			return invalid(name, "the value has %d bytes, at most %d are allowed", len(value), maxPropertyValue)
		}
	}
	if n := metadataBytes(img); n > maxMetadata && n > before {
		return fmt.Errorf("%w: its name, owner, tags and properties have %d bytes together, at most %d are allowed", ErrMetadata, n, maxMetadata)
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

// word checks a field that has one of a few values; nil is allowed.
func word(field string, value *string, words []string) error {
	if value == nil || slices.Contains(words, *value) {
		return nil
	}
	return invalid(field, "%q is not one of %s", rules.Clip(*value), strings.Join(words, ", "))
}
