package http

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"glanced/backends"
)

func TestContentRanges(t *testing.T) {
	for text, want := range map[string]contentRange{
		"bytes 0-0/1":     {0, 0, 1},
		"bytes 10-19/200": {10, 19, 200},
		"Bytes 0-9/*":     {0, 9, -1},
		"bytes */0":       {-1, -1, 0},
		"bytes 9223372036854775805-9223372036854775806/9223372036854775807": {1<<63 - 3, 1<<63 - 2, 1<<63 - 1},
	} {
		if got, ok := parseContentRange(text); !ok || got != want {
			t.Errorf("%q is %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "bytes", "bytes ", "bytes 0-0", "bytes 0-0/", "bytes 0-0/0", "bytes 1-0/5", "bytes 0-5/5", "bytes */*", "bytes -1/5",
		"bytes 0-/5", "bytes +0-1/5", "bytes 0-1/+5", "bytes 0-1/5 ", "bytes 0 -1/5", "bytes=0-1/5", "items 0-1/5", "bytes 0-1/9223372036854775808",
		"bytes 0-18446744073709551616/5", "bytes 0x0-1/5", "bytes 0_0-1/5"} {
		if got, ok := parseContentRange(text); ok {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestLocations(t *testing.T) {
	for text, want := range map[string]string{
		"http://h/disk":                       "http://h/disk",
		"https://u:p@h:8443/a%2Fb/disk?x=y&z": "https://h:8443/a%2Fb/disk",
		"http://[::1]:80/disk":                "http://[::1]:80/disk",
		"http://h/a%20b":                      "http://h/a%20b",
		"http://h/":                           "http://h/",
	} {
		u, err := parseURL(text)
		if err != nil || shown(u) != want {
			t.Errorf("%q is shown as %v, %v", text, u, err)
		}
	}
	for _, text := range []string{"", "disk", "//h/disk", "http:/disk", "http:h/disk", "http://", "http:///disk", "http://h", "http://:80/disk", "http://h:/disk",
		"http://h:0/disk", "http://h:65536/disk", "http://h:x/disk", "ftp://h/disk", "file:///disk", "http://u@h/disk", "http://h/disk#part", "http://h/disk#",
		"http://h/a/../disk", "http://h/./disk", "http://h/%2e%2e/disk", "http://h/a b\n", "http://h/\x00", "http://h/" + strings.Repeat("x", maxURL)} {
		if u, err := parseURL(text); err == nil {
			t.Errorf("%q is taken as %v", text, u)
		}
	}
}

func TestPausesThatServersAskFor(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "+1": 0, "5": 5 * time.Second, "9999999999": time.Hour,
		"Sat, 21 Nov 2026 12:00:07 GMT": 7 * time.Second, "Sat, 21 Nov 2026 11:00:00 GMT": 0, "Sat, 21 Nov 2099 11:00:00 GMT": time.Hour,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}

// FuzzHeaders has a server say anything: what is made of it is within bounds, and is
// what would be said again.
func FuzzHeaders(f *testing.F) {
	f.Add("bytes 0-9/100", `"tag"`, "5")
	f.Add("bytes */100", `W/"tag"`, "Sat, 21 Nov 2026 12:00:07 GMT")
	f.Add("bytes 5-/", `""`, "-1")
	f.Fuzz(func(t *testing.T, text, tag, pause string) {
		if r, ok := parseContentRange(text); ok {
			again, total := fmt.Sprintf("bytes %d-%d/", r.start, r.end), "*"
			if r.start < 0 {
				again = "bytes */"
			} else if r.end < r.start || r.total >= 0 && r.end >= r.total {
				t.Errorf("%q is %+v", text, r)
			}
			if r.total >= 0 {
				total = fmt.Sprint(r.total)
			}
			if same, ok := parseContentRange(again + total); !ok || same != r {
				t.Errorf("%q is %+v, and %q %+v", text, r, again+total, same)
			}
		}
		if v := strongETag(http.Header{"Etag": {tag}}); v != "" && (v != tag || len(v) > maxETag || strings.ContainsAny(v[1:len(v)-1], "\" \n\x00")) {
			t.Errorf("the ETag %q is %q", tag, v)
		}
		if p := retryAfter(http.Header{"Retry-After": {pause}}, time.Unix(0, 0)); p < 0 || p > maxRetryAfter {
			t.Errorf("Retry-After %q is %v", pause, p)
		}
	})
}

// FuzzLocation has a location, and what a server then redirects to, be anything: no
// message tells what is secret in them, and nothing secret goes elsewhere.
func FuzzLocation(f *testing.F) {
	f.Add("http://user:passw0rd@h/disk?sig=s3cret", "http://other/disk")
	f.Add("https://h:8443/a%2Fb", "/c?d")
	f.Add("http://user:passw0rd@h/disk", "//user:passw0rd@other")
	f.Add("http://h/a/../b#x", "../..")
	s := &Store{id: "web"}
	f.Fuzz(func(t *testing.T, text, to string) {
		u, err := s.parse(backends.Location{Store: "web", URL: text})
		if err != nil {
			if strings.Contains(text, "passw0rd") && strings.Contains(err.Error(), "passw0rd") {
				t.Errorf("the error tells the password: %v", err)
			}
			return
		}
		plain, err := url.Parse(shown(u))
		if err != nil || plain.User != nil || plain.RawQuery != "" || plain.Host != u.Host || plain.Path != u.Path {
			t.Errorf("%q is shown as %q", text, shown(u))
		}
		if who, err := url.Parse(place(u)); err != nil || who.User != nil {
			t.Errorf("%q lies at %q", text, place(u))
		}
		next, err := redirected(u, to)
		if err != nil {
			return
		}
		if next.User != nil || next.Scheme != "https" && (next.Scheme != "http" || u.Scheme == "https") {
			t.Errorf("from %q to %q", text, next)
		}
		if credentials(u, next) != nil && !strings.EqualFold(next.Hostname(), u.Hostname()) {
			t.Errorf("the password of %q goes to %q", text, next)
		}
	})
}
