package ctl_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// What is announced and never sent must not hold a connection for ever, of a
// stranger least of all.
func TestABodyThatNeverComesIsGivenUp(t *testing.T) {
	w := newWorld(t, options{stall: 50 * time.Millisecond})
	const token = "X-Auth-Token: demo-token\r\n"
	for name, head := range map[string]string{
		"of a stranger":           "GET /versions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n",
		"in chunks":               "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
		"where none is expected":  "GET /v2/images HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + token,
		"of a create":             "POST /v2/images HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n" + token,
		"that nothing looks into": "POST /v2/images/none/actions/deactivate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + token,
		"after 100 Continue":      "POST /v2/images HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + token,
	} {
		t.Run(name, func(t *testing.T) {
			_, r := w.raw(head + "\r\n")
			// Answered or not: it ends. The reader's own limit is far off.
			if _, err := io.ReadAll(r); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
		})
	}
}

func TestAClientThatTakesNoAnswersIsGivenUp(t *testing.T) {
	w := newWorld(t, options{stall: 50 * time.Millisecond})
	w.create(map[string]any{"long": strings.Repeat("x", 60_000)})
	c, _ := w.raw("")
	for {
		// The server reads the next request when it is rid of the last answer.
		_, err := io.WriteString(c, strings.Repeat("GET /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: demo-token\r\n\r\n", 100))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the server still waits for a client that takes nothing")
		}
		if err != nil {
			break
		}
	}
}

func TestAConnectionOutlivesTheLimitsOfItsRequests(t *testing.T) {
	w := newWorld(t, options{stall: 50 * time.Millisecond})
	c, r := w.raw("")
	for _, h := range []string{"Content-Length: 4", "Content-Length: 4", "Content-Length: 4\r\nExpect: 100-continue"} {
		if _, err := io.WriteString(c, putHead(w.create(nil), h)+"data"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err == nil && res.StatusCode == http.StatusContinue {
			res, err = http.ReadResponse(r, nil)
		}
		if err != nil || res.StatusCode != http.StatusNoContent {
			t.Fatal(res, err)
		}
		time.Sleep(100 * time.Millisecond) // longer than any limit of the request before
	}
}
