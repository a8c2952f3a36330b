package overhttp

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"glanced/backends/stored"
)

func TestContentRanges(t *testing.T) {
	for text, want := range map[string]ContentRange{
		"bytes 0-0/1":     {0, 0, 1},
		"bytes 10-19/200": {10, 19, 200},
		"Bytes 0-9/*":     {0, 9, -1},
		"bytes */0":       {-1, -1, 0},
		"bytes 9223372036854775805-9223372036854775806/9223372036854775807": {1<<63 - 3, 1<<63 - 2, 1<<63 - 1},
	} {
		if got, ok := ParseContentRange(text); !ok || got != want {
			t.Errorf("%q is %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "bytes", "bytes ", "bytes 0-0", "bytes 0-0/", "bytes 0-0/0", "bytes 1-0/5", "bytes 0-5/5", "bytes */*", "bytes -1/5",
		"bytes 0-/5", "bytes +0-1/5", "bytes 0-1/+5", "bytes 0-1/5 ", "bytes 0 -1/5", "bytes=0-1/5", "items 0-1/5", "bytes 0-1/9223372036854775808",
		"bytes 0-18446744073709551616/5", "bytes 0x0-1/5", "bytes 0_0-1/5"} {
		if got, ok := ParseContentRange(text); ok {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestPausesThatServersAskFor(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "+1": 0, "5": 5 * time.Second, "9999999999": time.Hour,
		"Sat, 21 Nov 2026 12:00:07 GMT": 7 * time.Second, "Sat, 21 Nov 2026 11:00:00 GMT": 0, "Sat, 21 Nov 2099 11:00:00 GMT": time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}

// FuzzHeaders has a server say anything: what is made of it is within bounds, and is
// what would be said again.
func FuzzHeaders(f *testing.F) {
	f.Add("bytes 0-9/100", "5")
	f.Add("bytes */100", "Sat, 21 Nov 2026 12:00:07 GMT")
	f.Add("bytes 5-/", "-1")
	f.Fuzz(func(t *testing.T, text, pause string) {
		if r, ok := ParseContentRange(text); ok {
			again, total := fmt.Sprintf("bytes %d-%d/", r.Start, r.End), "*"
			if r.Start < 0 {
				again = "bytes */"
			} else if r.End < r.Start || r.Total >= 0 && r.End >= r.Total {
				t.Errorf("%q is %+v", text, r)
			}
			if r.Total >= 0 {
				total = fmt.Sprint(r.Total)
			}
			if same, ok := ParseContentRange(again + total); !ok || same != r {
				t.Errorf("%q is %+v, and %q %+v", text, r, again+total, same)
			}
		}
		if p := RetryAfter(http.Header{"Retry-After": {pause}}, time.Unix(0, 0)); p < 0 || p > maxRetryAfter {
			t.Errorf("Retry-After %q is %v", pause, p)
		}
	})
}

func TestARangeIsHeldAgainstWhatWasAskedFor(t *testing.T) {
	for header, want := range map[string]error{
		"bytes 10-19/100": nil,
		"bytes 10-19/101": stored.ErrChanged,
		"bytes */99":      stored.ErrChanged,
		"bytes 10-18/100": stored.ErrUnavailable,
		"bytes 11-20/100": stored.ErrUnavailable,
		"bytes 10-19/*":   stored.ErrUnavailable,
		"bytes */100":     stored.ErrUnavailable,
		"":                stored.ErrUnavailable,
	} {
		if err := CheckRange(header, 10, 10, 100); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%q: %v, want %v", header, err, want)
		}
	}
}
