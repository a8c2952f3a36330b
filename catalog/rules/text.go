package rules

import (
	"errors"
	"regexp"
	"unicode/utf8"
)

// ErrInvalid comes wrapped, with the field and what is wrong with its value.
var ErrInvalid = errors.New("invalid value")

// canonicalUUID is not package uuid's, which reaches the network.
var canonicalUUID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// IsID is as Glance's schema: the canonical spelling of a UUID, either case.
func IsID(s string) bool { return canonicalUUID.MatchString(s) }

// Clip keeps a long value from filling an error message.
func Clip(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}
