package ctl_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glanced/catalog"
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
	const stall = 500 * time.Millisecond
	w := newWorld(t, options{stall: stall})
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
		time.Sleep(stall + stall/4) // longer than any limit of the request before
	}
}

// A limit on silence is none on slowness: this client takes some of its download all
// the time, and needs several times the limit for all of it.
func TestASlowSteadyReaderGetsItsDownload(t *testing.T) {
	const size, step, pause = 3 << 20, 64 << 10, 100 * time.Millisecond // 5 s in all
	w := newWorld(t, options{stall: time.Second})
	plain := randomBytes(size)
	for i := range plain {
		plain[i] &= 15
	}
	raw, coded := filepath.Join(t.TempDir(), "raw"), filepath.Join(t.TempDir(), "coded")
	if err := os.WriteFile(raw, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, coded)
	small, err := os.ReadFile(coded)
	if err != nil {
		t.Fatal(err)
	}
	// What the kernels hold between the two counts as taken, so that is little.
	little := func(buffer int) func(_, _ string, c syscall.RawConn) error {
		return func(_, _ string, c syscall.RawConn) (err error) {
			c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, buffer, 32<<10) })
			return err
		}
	}
	server, err := w.server.Listener.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = little(unix.SO_SNDBUF)("", "", server) // its connections inherit it
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		format string
		data   []byte
	}{"by sendfile": {"raw", plain}, "through a buffer": {"qcow2", small}} {
		id := w.create(map[string]any{"disk_format": c.format})
		if err := w.catalog.Upload(t.Context(), id, bytes.NewReader(c.data), catalog.UploadOptions{Size: -1}); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := (&net.Dialer{Control: little(unix.SO_RCVBUF)}).DialContext(t.Context(), "tcp", w.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.WriteString(c, "GET /v2/images/"+id+"/file?disk_format=raw HTTP/1.0\r\nX-Auth-Token: demo-token\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			got := int64(0)
			for {
				n, err := io.CopyN(io.Discard, c, step)
				got += n
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("cut off after %d bytes: %v", got, err)
				}
				time.Sleep(pause)
			}
			if got < size {
				t.Errorf("cut off after %d bytes", got)
			}
		})
	}
}
