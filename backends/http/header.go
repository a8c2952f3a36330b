package http

import (
	"net/http"
	"strings"
	"time"
)

// maxETag is the longest entity tag that is taken for a version, bytes.
const maxETag = 1 << 10

// strongETag is the ETag of an answer (RFC 9110, section 8.8.3), with its quotes; ""
// where there is none, or it is weak, or not plain text.
func strongETag(h http.Header) string {
	tags := h.Values("Etag")
	if len(tags) != 1 {
		return ""
	}
	tag := tags[0]
	if len(tag) < 2 || len(tag) > maxETag || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return ""
	}
	for _, c := range []byte(tag[1 : len(tag)-1]) {
		if c < 0x21 || c > 0x7e || c == '"' {
			return ""
		}
	}
	return tag
}

// encoding is what was done to the bytes of an answer on the way; "" = nothing.
func encoding(h http.Header) string {
	for _, e := range h.Values("Content-Encoding") {
		if !strings.EqualFold(e, "identity") {
			return e
		}
	}
	return ""
}

// settled is how much older than an answer a Last-Modified must be, so that a second
// change within its second would show (RFC 9110, section 8.8.2.2).
const settled = 2 * time.Second

// validators are what tells one state of an object from another as far as a server
// lets them be told, without its bytes; "" = not at all.
func validators(h http.Header) string {
	tag, modified := h.Get("Etag"), h.Get("Last-Modified")
	if tag == "" {
		date, err := http.ParseTime(h.Get("Date"))
		changed, err2 := http.ParseTime(modified)
		if err != nil || err2 != nil || date.Sub(changed) < settled {
			return ""
		}
	}
	return tag + "\n" + modified
}
