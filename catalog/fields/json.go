package fields

import (
	"strconv"
	"unicode/utf8"
)

// AppendJSON appends v as JSON, RFC 8259, to b: lists and single images are written by
// it, a value at a time and without a look at types.
func (v Value) AppendJSON(b []byte) []byte {
	if v.Null {
		return append(b, "null"...)
	}
	switch v.Kind {
	case Integer:
		return strconv.AppendInt(b, v.Int, 10)
	case Boolean:
		return strconv.AppendBool(b, v.Bool)
	case List:
		b = append(b, '[')
		for i, s := range v.List {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendText(b, s)
		}
		return append(b, ']')
	}
	return AppendText(b, v.Text)
}

const hexDigits = "0123456789abcdef"

// AppendText appends s as a JSON string to b, byte for byte as encoding/json writes it
// where it does not escape HTML: control characters, quotes, backslashes and the two
// separators that JavaScript takes for ends of lines are escaped, and what is not UTF-8
// is replaced.
func AppendText(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0 // of s, bytes
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			if r, n = utf8.DecodeRuneInString(s[i:]); (r != utf8.RuneError || n > 1) && r != '\u2028' && r != '\u2029' {
				i += n
				continue
			}
		}
		b = appendEscaped(append(b, s[done:i]...), r)
		i += n
		done = i
	}
	return append(append(b, s[done:]...), '"')
}

// appendEscaped appends one character that cannot stand in a JSON string as it is.
func appendEscaped(b []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(b, '\\', byte(r))
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
