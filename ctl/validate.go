package ctl

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Names that no client may set, beyond the schema's read-only ones. Glance calls
// them reserved: they are columns of its tables.
var reserved = []string{"location", "deleted", "deleted_at", "locations"}

// reservedPrefix is for properties that the service itself writes.
const reservedPrefix = "os_glance_"

const (
	maxTags       = 128
	maxProperties = 128
	maxMinimum    = 1<<31 - 1 // of min_disk and min_ram
)

// settable returns the 403 for an attribute that clients may not set.
func (s schemas) settable(name string) error {
	if f, ok := s.fields[name]; ok && f.readOnly {
		return fail(http.StatusForbidden, "Attribute '%s' is read-only.", name)
	}
	if slices.Contains(reserved, name) || strings.HasPrefix(name, reservedPrefix) {
		return fail(http.StatusForbidden, "Attribute '%s' is reserved.", shorten(name))
	}
	return nil
}

// check returns the 400 for a value that the schema of the image does not allow
// under this name. Its words are those of Glance's schema library.
func (s schemas) check(name string, value any) error {
	f, ok := s.fields[name]
	if !ok {
		f = field{name: name, types: stringType}
	}
	if why := f.refuses(value); why != "" {
		return fail(http.StatusBadRequest, "Provided object does not match schema 'image': %s, in '%s'", why, shorten(name))
	}
	return nil
}

// refuses says what is wrong with v, "" when nothing is.
func (f field) refuses(v any) string {
	if !slices.Contains(f.types, jsonType(v)) {
		return fmt.Sprintf("%s is not of type '%s'", literal(v), strings.Join(f.types, "', '"))
	}
	switch v := v.(type) {
	case string:
		if f.enum != nil && !slices.Contains(f.enum, v) {
			var all []string
			for _, c := range f.choices() {
				all = append(all, literal(c))
			}
			return fmt.Sprintf("%s is not one of [%s]", literal(v), strings.Join(all, ", "))
		}
		if f.maxLength > 0 && utf8.RuneCountInString(v) > f.maxLength {
			return fmt.Sprintf("%s is too long: at most %d characters are allowed", literal(v), f.maxLength)
		}
		if f.pattern != "" && !regexp.MustCompile(f.pattern).MatchString(v) {
			return fmt.Sprintf("%s does not match '%s'", literal(v), f.pattern)
		}
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return fmt.Sprintf("%s is out of range", literal(v))
		}
		if n < 0 {
			return fmt.Sprintf("Cannot be a negative value: %d", n)
		}
		if n > maxMinimum {
			return fmt.Sprintf("value out of range, must not exceed %d", maxMinimum)
		}
	case []any: // tags: the only array that clients may set
		item := field{types: stringType, maxLength: maxTagLength}
		for _, t := range v {
			if why := item.refuses(t); why != "" {
				return why
			}
		}
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
