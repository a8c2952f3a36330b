package http

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// contentRange is a Content-Range header in bytes (RFC 9110, section 14.4).
type contentRange struct {
	start, end int64 // the first and the last byte; -1: none was served
	total      int64 // of the object, bytes; -1 = the server does not know
}

// parseContentRange reads "bytes 0-9/100", "bytes 0-9/*" and "bytes */100".
func parseContentRange(text string) (r contentRange, ok bool) {
	unit, rest, ok := strings.Cut(text, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return r, false
	}
	span, total, ok := strings.Cut(rest, "/")
	if !ok {
		return r, false
	}
	r = contentRange{-1, -1, -1}
	if total != "*" {
		if r.total, ok = number(total); !ok {
			return r, false
		}
	}
	if span == "*" {
		return r, r.total >= 0
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return r, false
	}
	var okFirst, okLast bool
	r.start, okFirst = number(first)
	r.end, okLast = number(last)
	return r, okFirst && okLast && r.start <= r.end && (r.total < 0 || r.end < r.total)
}

// number reads digits and nothing else.
func number(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err == nil
}

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

// maxRetryAfter is the longest pause that a server is believed to mean.
const maxRetryAfter = time.Hour

// retryAfter reads a Retry-After header in seconds or as a date (RFC 9110, section
// 10.2.3); 0 = none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if n, ok := number(text); text != "" && ok {
		return time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
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
