package ctl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"glanced/catalog/fields"
)

// settable returns the 403 for an attribute that clients may not set.
func settable(name string) error {
	if f, ok := fields.Find(name); ok && f.Writer == fields.Nobody {
		return fail(http.StatusForbidden, "Attribute '%s' is read-only.", name)
	}
	if fields.Reserved(name) {
		return fail(http.StatusForbidden, "Attribute '%s' is reserved.", shorten(name))
	}
	return nil
}

// check returns the 400 for a value that the schema of the image does not allow
// under this name. Its words are those of Glance's schema library.
func check(name string, value any) error {
	f, ok := fields.Find(name)
	if !ok {
		f = &anyProperty
	}
	if why := refuses(f, value); why != "" {
		return fail(http.StatusBadRequest, "Provided object does not match schema 'image': %s, in '%s'", why, shorten(name))
	}
	return nil
}

// anyProperty is a custom property that the schema does not know.
var anyProperty = fields.Field{Kind: fields.Text}

// refuses says what is wrong with v as a value of f, "" when nothing is.
func refuses(f *fields.Field, v any) string {
	if types := jsonTypes(f); !slices.Contains(types, jsonType(v)) {
		return fmt.Sprintf("%s is not of type '%s'", literal(v), strings.Join(types, "', '"))
	}
	switch v := v.(type) {
	case string:
		return refusesText(f, v)
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return fmt.Sprintf("%s is out of range", literal(v))
		}
		if n < 0 {
			return fmt.Sprintf("Cannot be a negative value: %d", n)
		}
		if n > f.Max {
			return fmt.Sprintf("value out of range, must not exceed %d", f.Max)
		}
	case []any: // a list of texts: locations are reserved
		item := fields.Field{Kind: fields.Text, MaxLength: f.MaxLength}
		for _, t := range v {
			if why := refuses(&item, t); why != "" {
				return why
			}
		}
	}
	return ""
}

func refusesText(f *fields.Field, v string) string {
	if f.Words != nil && !slices.Contains(f.Words, v) {
		var all []string
		for _, c := range choices(f) {
			all = append(all, literal(c))
		}
		return fmt.Sprintf("%s is not one of [%s]", literal(v), strings.Join(all, ", "))
	}
	if f.MaxLength > 0 && utf8.RuneCountInString(v) > f.MaxLength {
		return fmt.Sprintf("%s is too long: at most %d characters are allowed", literal(v), f.MaxLength)
	}
	if !f.Matches(v) {
		return fmt.Sprintf("%s does not match '%s'", literal(v), f.Pattern)
	}
	return ""
}

// jsonType is v's JSON Schema type; v comes from readJSON.
func jsonType(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	case []any:
		return "array"
	}
	return "object"
}

// literal shows a value in a message as Glance, being Python, does.
func literal(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		q := strconv.Quote(v)
		return "'" + shorten(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)) + "'"
	case json.Number:
		return shorten(v.String())
	case []any:
		return "a list"
	}
	return "an object"
}

// shorten keeps what a client sent from filling its own error message.
func shorten(s string) string {
	const most = 100 // bytes
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
