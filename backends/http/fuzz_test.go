package http

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"glanced/backends"
)

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

func TestWhatIsAStrongTag(t *testing.T) {
	for tag, strong := range map[string]bool{`"tag"`: true, `""`: true, `W/"tag"`: false, "": false, `"`: false, `"a"b"`: false, "\"a b\"": false, "tag": false,
		`"` + strings.Repeat("x", maxETag) + `"`: false} {
		if v := strongETag(http.Header{"Etag": {tag}}); (v != "") != strong || v != "" && v != tag {
			t.Errorf("the ETag %q is %q", tag, v)
		}
	}
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
