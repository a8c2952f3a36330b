package ctl

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// byteRange is [off, off+n) of a file, in bytes.
type byteRange struct{ off, n int64 }

func (b byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.off, b.off+b.n-1, size)
}

// requestedRange is the part of a file of size bytes that r asks for; partial is
// false when it asks for all. One range only (RFC 9110, 14.2); as Glance, more
// than one is 400, and what is no range at all is 416. Glance also takes the
// range as a Content-Range header of the request, for old clients.
func requestedRange(r *http.Request, size int64) (b byteRange, partial bool, err error) {
	text := r.Header.Get("Range")
	if text == "" {
		return contentRangeAsked(r.Header.Get("Content-Range"), size)
	}
	spec, ok := strings.CutPrefix(text, "bytes=")
	if strings.Contains(spec, ",") {
		return b, false, fail(http.StatusBadRequest, "Requests with multiple ranges are not supported in Glance. You may make multiple single-range requests instead.")
	}
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || !dash || first == "" && last == "" {
		return b, false, unsatisfiable(size, "Invalid Range header.")
	}
	if first == "" { // the last n bytes
		n, ok := parseOffset(last)
		if !ok || n == 0 || size == 0 {
			return b, false, unsatisfiable(size, "Invalid Range header.")
		}
		n = min(n, size)
		return byteRange{size - n, n}, true, nil
	}
	from, ok := parseOffset(first)
	to := size - 1
	if ok && last != "" {
		to, ok = parseOffset(last)
		ok = ok && to >= from
		to = min(to, size-1)
	}
	if !ok {
		return b, false, unsatisfiable(size, "Invalid Range header.")
	}
	if from >= size {
		return b, false, unsatisfiable(size, fmt.Sprintf("Invalid start position in Range header. Start position MUST be in the inclusive range [0, %d].", max(size-1, 0)))
	}
	return byteRange{from, to - from + 1}, true, nil
}

// contentRangeAsked reads "bytes 10-19/100" or "bytes 10-19/*".
func contentRangeAsked(text string, size int64) (b byteRange, partial bool, err error) {
	if text == "" {
		return byteRange{0, size}, false, nil
	}
	spec, ok := strings.CutPrefix(text, "bytes ")
	spec, total, slash := strings.Cut(spec, "/")
	first, last, dash := strings.Cut(spec, "-")
	from, okFrom := parseOffset(first)
	to, okTo := parseOffset(last)
	if !ok || !slash || !dash || !okFrom || !okTo || to < from || from >= size || total != "*" && total != strconv.FormatInt(size, 10) {
		return b, false, unsatisfiable(size, "Invalid Content-Range header.")
	}
	return byteRange{from, min(to, size-1) - from + 1}, true, nil
}

// parseOffset takes digits only; ParseInt alone would take a sign. What is too
// large for a file is as good as the largest.
func parseOffset(text string) (int64, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(text, 10, 64) // out of range: the largest int64
	return n, true
}

func unsatisfiable(size int64, why string) error {
	return fail(http.StatusRequestedRangeNotSatisfiable, "The Range requested is not available. %s", why).
		with("Content-Range", fmt.Sprintf("bytes */%d", size))
}
