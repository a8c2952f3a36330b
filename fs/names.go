package fs

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"

	"glanced/catalog/fields"
)

// maxName is the longest file name Linux programs reckon with, in bytes (NAME_MAX).
const maxName = 255

// emptyName stands for the empty image name. No other name is written so: a lone
// percent sign is escaped to keep it free.
const emptyName = "%"

const upperHex = "0123456789ABCDEF"

// fileName is how an image's name is spelled in by-name. Most names stand as
// they are, in any script. What cannot be a file name, or would harm a terminal,
// is percent-encoded byte by byte as in RFC 3986: "/", control characters
// (ASCII's and Unicode's C1), characters that show nothing but change how others are
// read (those that turn the direction of writing, as U+202E; invisible ones), bytes
// that are not UTF-8, a name that is "." or ".." altogether, a "%" that could be read
// as the start of an escape, and the "~" of a name that ends as one with an id does
// (idName). The empty name is "%". imageName reverses it.
//
// A spelling of more than 255 bytes is cut between two characters and ends in
// "~" and 16 hex digits of the SHA-256 of the whole name; that is the one case
// that cannot be reversed (the whole name is in metadata.json and in the
// attribute user.glance.name).
func fileName(name string) string {
	switch name {
	case "":
		return emptyName
	case ".", "..":
		return strings.Repeat("%2E", len(name))
	case emptyName:
		return "%25"
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if mustEscape(name[i:], r, n) {
			for _, c := range []byte(name[i : i+n]) {
				b.WriteByte('%')
				b.WriteByte(upperHex[c>>4])
				b.WriteByte(upperHex[c&15])
			}
		} else {
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	if b.Len() <= maxName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	tail := "~" + hex.EncodeToString(sum[:8])
	return cut(b.String(), maxName-len(tail)) + tail
}

// mustEscape tells whether the character r of n bytes at the start of rest is
// to be percent-encoded.
func mustEscape(rest string, r rune, n int) bool {
	switch {
	case r == utf8.RuneError && n == 1: // not UTF-8
		return true
	case r == '/' || unicode.IsControl(r) || unseen(r):
		return true
	case r == '~':
		return fields.IsID(rest[1:])
	case r == '%':
		return isEscape(rest)
	}
	return false
}

// unseen tells whether a character shows nothing itself: format characters, but for
// the two that Persian, Indic scripts and emoji are written with, and separators of
// lines and paragraphs.
func unseen(r rune) bool {
	const joiner, nonJoiner = '\u200d', '\u200c'
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) && r != joiner && r != nonJoiner
}

// isEscape tells whether s begins with "%" and two hex digits.
func isEscape(s string) bool {
	if len(s) < 3 || s[0] != '%' {
		return false
	}
	_, err := hex.DecodeString(s[1:3])
	return err == nil
}

// cut shortens a spelling to at most n bytes, splitting neither a character nor
// an escape.
func cut(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	for back := 1; back <= 2 && back <= n; back++ {
		if isEscape(s[n-back:]) {
			return s[:n-back]
		}
	}
	return s[:n]
}

// plainName tells whether an image id can stand as a file name as it is. Ids are
// UUIDs, so this fails only for a record that somebody else wrote.
func plainName(id string) bool {
	return id != "" && len(id) <= maxName && fileName(id) == id
}
