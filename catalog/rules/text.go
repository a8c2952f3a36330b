package rules

import (
	"errors"
	"unicode/utf8"
)

// ErrInvalid comes wrapped, with the field and what is wrong with its value.
var ErrInvalid = errors.New("invalid value")

// Clip keeps a long value from filling an error message.
func Clip(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}
