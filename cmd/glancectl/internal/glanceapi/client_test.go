package glanceapi

import (
	"net/http"
	"testing"
	"time"
)

func TestErrorBodiesBecomePlainText(t *testing.T) {
	for _, tt := range []struct{ contentType, body, want string }{
		{"text/html; charset=UTF-8", "<html>\n <head>\n  <title>409 Conflict</title>\n </head>\n <body>\n  <h1>409 Conflict</h1>\n" +
			"  There was a conflict when trying to complete your request.<br /><br />\nProperty new_prop does not exist.\n\n\n </body>\n</html>",
			"There was a conflict when trying to complete your request. Property new_prop does not exist."},
		{"text/html", "<h1>400 Bad Request</h1>Invalid filter value &quot;list-1. The quote is not closed.", `Invalid filter value "list-1. The quote is not closed.`},
		{"", "<html><body>no content type</body></html>", "no content type"},
		{"application/json", `{"error": {"code": 401, "message": "The request you have made requires authentication."}}`, "The request you have made requires authentication."},
		{"application/json", `{"message": "a<br />b"}`, "a b"},
		{"application/json", `{"error": "flat"}`, "flat"},
		{"application/json", `{"odd": [1]}`, `{"odd": [1]}`},
		{"text/plain", "bad \xff bytes\n", "bad \uFFFD bytes"},
		{"text/plain", "", ""},
	} {
		if got := plainText(tt.contentType, []byte(tt.body)); got != tt.want {
			t.Errorf("%s %q became %q, want %q", tt.contentType, tt.body, got, tt.want)
		}
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "soon": 0, "5": 5 * time.Second, "0": minRetryAfter, "-3": minRetryAfter, "9999999999": time.Hour,
		"Sat, 21 Nov 2026 12:00:07 GMT": 7 * time.Second, "Sat, 21 Nov 2026 11:00:00 GMT": minRetryAfter,
	} {
		h := http.Header{}
		if v != "" {
			h.Set("Retry-After", v)
		}
		if got := retryAfter(h, now); got != want {
			t.Errorf("Retry-After %q is %v, want %v", v, got, want)
		}
	}
}

func TestTheURLMayEndInTheVersion(t *testing.T) {
	for raw, want := range map[string]string{
		"http://h:9292": "http://h:9292", "http://h:9292/": "http://h:9292", "http://h:9292/v2": "http://h:9292",
		"http://h:9292/v2/": "http://h:9292", "https://h/image/v2": "https://h/image", "https://h/image": "https://h/image",
	} {
		c, err := NewURL(raw, "")
		if err != nil || c.Where() != want {
			t.Errorf("%s is %v, %v, want %s", raw, c, err, want)
		}
	}
	for _, raw := range []string{"", "h:9292", "ftp://h", "http://", "http://user:secret@h", "http://h?q=1", "http://h/%zz"} {
		if _, err := NewURL(raw, ""); err == nil {
			t.Errorf("%q is taken", raw)
		}
	}
}
