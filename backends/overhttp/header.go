package overhttp

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"glanced/backends/stored"
)

// ContentRange is a Content-Range header in bytes (RFC 9110, section 14.4).
type ContentRange struct {
	Start, End int64 // the first and the last byte; -1: none was served
	Total      int64 // of the object, bytes; -1 = the server does not know
}

// ParseContentRange reads "bytes 0-9/100", "bytes 0-9/*" and "bytes */100".
func ParseContentRange(text string) (r ContentRange, ok bool) {
	unit, rest, ok := strings.Cut(text, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return r, false
	}
	span, total, ok := strings.Cut(rest, "/")
	if !ok {
		return r, false
	}
	r = ContentRange{-1, -1, -1}
	if total != "*" {
		if r.Total, ok = number(total); !ok {
			return r, false
		}
	}
	if span == "*" {
		return r, r.Total >= 0
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return r, false
	}
	var okFirst, okLast bool
	r.Start, okFirst = number(first)
	r.End, okLast = number(last)
	return r, okFirst && okLast && r.Start <= r.End && (r.Total < 0 || r.End < r.Total)
}

// number reads digits and nothing else.
func number(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err == nil
}

// CheckRange is nil where a Content-Range header says that the n bytes from off on were
// answered, of an object of size bytes. Another size is stored.ErrChanged, and another
// range, or none, stored.ErrUnavailable: a server or a proxy is at fault.
func CheckRange(header string, off, n, size int64) error {
	r, ok := ParseContentRange(header)
	switch {
	case ok && r.Total >= 0 && r.Total != size:
		return fmt.Errorf("%w: %d bytes were opened, there are %d", stored.ErrChanged, size, r.Total)
	case !ok || r.Total < 0 || r.Start != off || r.End != off+n-1:
		return fmt.Errorf("%w: not what was asked for: Content-Range is %q", stored.ErrUnavailable, Clip(header))
	}
	return nil
}

// maxRetryAfter is the longest pause that a server is believed to mean.
const maxRetryAfter = time.Hour

// RetryAfter reads a Retry-After header in seconds or as a date (RFC 9110, section
// 10.2.3); 0 = none.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if n, ok := number(text); text != "" && ok {
		return time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
