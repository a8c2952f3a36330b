package ctl_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

func TestDownloadsAreTheUploadedBytes(t *testing.T) {
	for _, source := range []string{"a local file", "a store without local files"} {
		t.Run(source, func(t *testing.T) {
			w := newWorld(t, options{store: func(s backends.Store) backends.Store {
				if source == "a local file" {
					return s
				}
				return remoteStore{s}
			}})
			data := randomBytes(19<<20 + 12345) // several buffers and pieces, and a rest
			id := w.create(nil)
			w.upload(id, data)
			a := w.do("GET", "/v2/images/"+id+"/file", nil)
			if a.StatusCode != 200 || !bytes.Equal(a.body, data) || a.ContentLength != int64(len(data)) {
				t.Fatalf("%d, %d bytes of %d, Content-Length %d", a.StatusCode, len(a.body), len(data), a.ContentLength)
			}
			tag := a.Header.Get("ETag")
			for _, r := range [][2]int{{0, 0}, {1<<20 - 1, 1 << 20}, {8<<20 - 5, 17<<20 + 3}, {len(data) - 1, len(data) - 1}} {
				a := w.do("GET", "/v2/images/"+id+"/file", nil, "Range", fmt.Sprintf("bytes=%d-%d", r[0], r[1]), "If-Range", tag)
				if a.StatusCode != 206 || !bytes.Equal(a.body, data[r[0]:r[1]+1]) {
					t.Errorf("bytes %v: %d, %d bytes", r, a.StatusCode, len(a.body))
				}
			}
			if a := w.do("GET", "/v2/images/"+id+"/file", nil, "Range", "bytes=0-1", "If-Range", `"other"`); a.StatusCode != 200 || len(a.body) != len(data) {
				t.Errorf("a range of other bytes: %d, %d bytes", a.StatusCode, len(a.body))
			}
		})
	}
}

// remoteStore hides that a store's bytes lie in local files, as they do not with S3.
type remoteStore struct{ backends.Store }

type remoteBlob struct{ stored.Bytes }

func (s remoteStore) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	b, err := s.Store.Open(ctx, loc)
	if err != nil {
		return nil, err
	}
	return remoteBlob{b}, nil
}

func TestConcurrentDownloadsDoNotShareAPosition(t *testing.T) {
	w := newWorld(t, options{})
	data := randomBytes(12 << 20)
	id := w.create(nil)
	w.upload(id, data)
	done := make(chan error)
	const readers = 6
	for i := range readers {
		go func() {
			off := i * 1 << 20
			req, err := http.NewRequest("GET", w.server.URL+"/v2/images/"+id+"/file", nil)
			if err == nil {
				req.Header.Set("X-Auth-Token", "demo-token")
				req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
				var res *http.Response
				if res, err = w.server.Client().Do(req); err == nil {
					var got []byte
					got, err = io.ReadAll(res.Body)
					res.Body.Close()
					if err == nil && !bytes.Equal(got, data[off:]) {
						err = errors.New("other bytes")
					}
				}
			}
			done <- err
		}()
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A client must be able to tell a cut transfer from a whole one.
func TestARevokedDownloadEndsAsABrokenConnection(t *testing.T) {
	for _, how := range []string{"delete", "deactivate", "hide"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, options{})
			id := w.create(map[string]any{"visibility": "public"}, "X-Auth-Token", "admin-token")
			data := randomBytes(32 << 20) // more than both sockets' buffers hold
			w.upload(id, data, "X-Auth-Token", "admin-token")
			req, err := http.NewRequest("GET", w.server.URL+"/v2/images/"+id+"/file", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Auth-Token", "demo-token")
			res, err := w.server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.CopyN(io.Discard, res.Body, 1<<20); err != nil {
				t.Fatal(err)
			}
			var a answer
			switch how {
			case "delete":
				a = w.do("DELETE", "/v2/images/"+id, nil, "X-Auth-Token", "admin-token")
			case "deactivate":
				a = w.do("POST", "/v2/images/"+id+"/actions/deactivate", nil, "X-Auth-Token", "admin-token")
			case "hide":
				a = w.do("PATCH", "/v2/images/"+id, strings.NewReader(`[{"op":"replace","path":"/visibility","value":"private"}]`),
					"Content-Type", "application/openstack-images-v2.1-json-patch", "X-Auth-Token", "admin-token")
			}
			if a.StatusCode >= 300 {
				t.Fatalf("%s: %d %s", how, a.StatusCode, a.body)
			}
			n, err := io.Copy(io.Discard, res.Body)
			if err == nil || n+1<<20 >= int64(len(data)) {
				t.Errorf("the transfer went on: %d more bytes, %v", n, err)
			}
			want := map[string]int{"delete": 404, "deactivate": 403, "hide": 404}[how]
			w.refused(w.do("GET", "/v2/images/"+id+"/file", nil), want)
		})
	}
}

// raw sends text as it is on a connection of its own.
func (w *world) raw(text string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second)) // so that a server that says nothing fails the test
	if _, err := io.WriteString(c, text); err != nil {
		w.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func putHead(id string, h ...string) string {
	return "PUT /v2/images/" + id + "/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: demo-token\r\nContent-Type: application/octet-stream\r\n" +
		strings.Join(h, "\r\n") + "\r\n\r\n"
}

// Most clients send all of the body before they look for an answer.
func TestAClientThatStillSendsSeesWhyItWasRefused(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	w.upload(id, []byte("x"))
	const size = 24 << 20
	c, r := w.raw(putHead(id, fmt.Sprintf("Content-Length: %d", size)))
	if n, err := c.Write(make([]byte, size)); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 409 || !strings.Contains(string(body), "from active to saving is not allowed") {
		t.Errorf("%d %s %v", res.StatusCode, body, err)
	}
}

func TestContinueIsSaidOnlyWhenTheChecksPass(t *testing.T) {
	w := newWorld(t, options{})
	used, fresh := w.create(nil), w.create(nil)
	w.upload(used, []byte("x"))
	_, r := w.raw(putHead(used, "Content-Length: 5", "Expect: 100-continue"))
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 409 || !res.Close {
		t.Errorf("of an image in use: %v %v; want 409, and the connection closed before the body", res, err)
	}
	c, r := w.raw(putHead(fresh, "Content-Length: 5", "Expect: 100-continue"))
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("%q %v", line, err)
	}
	r.ReadString('\n')
	io.WriteString(c, "hello")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 204 {
		t.Errorf("of a fresh image: %v %v", res, err)
	}
}

func TestAnUploadOfUnknownLengthMaySayItsLength(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	w.upload(id, nil, "Transfer-Encoding", "chunked")
	if img := w.show(id); img["status"] != "active" || img["size"] != 0.0 {
		t.Errorf("%v", img)
	}
	id = w.create(nil)
	if a := w.put(id, io.MultiReader(strings.NewReader("hello")), "X-Openstack-Image-Size", "5"); a.StatusCode != 204 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// eventually waits until the server has noticed what a client did.
func (w *world) eventuallyQueued(id string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if w.show(id)["status"] == "queued" {
			return
		}
	}
	w.t.Fatalf("the image is still %v", w.show(id)["status"])
}

func TestABodyThatEndsTooEarlyLeavesNothing(t *testing.T) {
	for name, h := range map[string]string{
		"of known length": "Content-Length: 1000000", "chunked": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			id := w.create(nil)
			c, _ := w.raw(putHead(id, h))
			io.WriteString(c, "3e8\r\n"+strings.Repeat("x", 1000)+"\r\n")
			for w.show(id)["status"] == "queued" { // the upload has not begun yet
				time.Sleep(time.Millisecond)
			}
			c.Close()
			w.eventuallyQueued(id)
			w.nothingLeft(id)
		})
	}
}

func TestASilentClientIsGivenUp(t *testing.T) {
	w := newWorld(t, options{stall: 50 * time.Millisecond})
	id := w.create(nil)
	w.raw(putHead(id, "Content-Length: 10"))
	for w.show(id)["status"] == "queued" {
		time.Sleep(time.Millisecond)
	}
	w.eventuallyQueued(id)
	w.nothingLeft(id)
}

// failingStore takes some bytes and then fails as a full or broken disk does.
type failingStore struct {
	backends.Store
	err error
}

func (s failingStore) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.Store.Begin(ctx, key, size)
	return failingWriter{w, s.err}, err
}

type failingWriter struct {
	backends.Writer
	err error
}

func (w failingWriter) Write([]byte) (int, error) {
	return 0, fmt.Errorf("write /secret/path: %w", w.err)
}

func TestStoreFailuresAreToldWithoutPaths(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		words  string
	}{
		{backends.ErrFull, 413, "not enough space"},
		{backends.ErrReadOnly, 503, "cannot be written"},
		{backends.ErrUnavailable, 503, "cannot be reached"},
		{errors.New("bad sectors"), 503, "store failed"},
	} {
		w := newWorld(t, options{store: func(s backends.Store) backends.Store { return failingStore{s, c.err} }})
		id := w.create(nil)
		a := w.put(id, bytes.NewReader(randomBytes(1<<20)))
		w.refused(a, c.status, c.words)
		if strings.Contains(string(a.body), "secret") {
			t.Errorf("the answer names a path: %s", a.body)
		}
		w.nothingLeft(id)
	}
}

func TestAStoreWhoseFolderIsGoneAnswers503(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	if err := os.RemoveAll(filepath.Join(w.dir, "fast")); err != nil {
		t.Fatal(err)
	}
	// Not even root can make a folder below a file.
	if err := os.WriteFile(filepath.Join(w.dir, "fast"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(w.put(id, strings.NewReader("x")), 503)
	if img := w.show(id); img["status"] != "queued" {
		t.Errorf("the image is %v", img["status"])
	}
}

func TestUploadsAreCheckedBeforeTheyAreRead(t *testing.T) {
	w := newWorld(t, options{sizeCap: 1 << 20})
	id := w.create(nil)
	w.refused(w.put(id, strings.NewReader("abc"), "X-Image-Meta-Store", "nope"), 400, "Store for identifier nope not found")
	w.refused(w.put(id, strings.NewReader("abc"), "X-Image-Meta-Store", "web"), 403, "read-only")
	w.refused(w.put(id, strings.NewReader("abc"), "X-Openstack-Image-Size", "-3"), 400)
	w.refused(w.put(id, strings.NewReader("abc"), "X-Openstack-Image-Size", "4"), 400, "4 bytes", "3")
	w.refused(w.put(id, strings.NewReader("abc"), "Content-Type", "text/plain"), 415, "text/plain")
	w.refused(w.put(id, bytes.NewReader(make([]byte, 1<<20+1))), 413)
	w.refused(w.put(id, io.MultiReader(bytes.NewReader(make([]byte, 1<<20+1)))), 413)
	w.refused(w.put(id, io.MultiReader(strings.NewReader("123456")), "X-Openstack-Image-Size", "5"), 400)
	w.refused(w.put(id, io.MultiReader(strings.NewReader("1234")), "X-Openstack-Image-Size", "5"), 400)
	w.nothingLeft(id)
}

func TestContentThatIsNotWhatItSaysIsRefused(t *testing.T) {
	w := newWorld(t, options{})
	for name, data := range map[string][]byte{"text": []byte("not a disk at all"), "a cut header": []byte("KDMV\x01\x00\x00\x00")} {
		id := w.create(map[string]any{"disk_format": "vmdk"})
		w.refused(w.put(id, bytes.NewReader(data)), 415)
		w.nothingLeft(id)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestQcow2IsTakenOrRefusedByItsContent(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	w := newWorld(t, options{})
	dir := t.TempDir()
	qcow2 := func(args ...string) []byte {
		t.Helper()
		path := filepath.Join(dir, "disk.qcow2")
		cmd := exec.Command("qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, append(args, path, "3M")...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := qcow2()
	for _, c := range []struct {
		what  string
		data  []byte
		words string
	}{
		{"with a backing file", qcow2("-u", "-b", "/etc/passwd", "-F", "raw"), "backing file"},
		{"with an external data file", qcow2("-o", "data_file="+filepath.Join(dir, "data.raw")), "data file"},
		{"cut in its header", good[:40], ""},
		{"cut in its tables", good[:len(good)/2], ""},
		{"raw data", qcow2()[4:], ""},
	} {
		id := w.create(map[string]any{"disk_format": "qcow2"})
		a := w.put(id, bytes.NewReader(c.data))
		if a.StatusCode != 415 || !strings.Contains(a.message(t), c.words) {
			t.Errorf("%s: %d %s", c.what, a.StatusCode, a.body)
			continue
		}
		w.nothingLeft(id)
	}
	id := w.create(map[string]any{"disk_format": "qcow2"})
	w.upload(id, good)
	if img := w.show(id); img["virtual_size"] != float64(3<<20) || img["size"] != float64(len(good)) {
		t.Errorf("%v", img)
	}
}

func TestDeletedWhileUploadingIs410(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	c, r := w.raw(putHead(id, "Content-Length: 1000000"))
	io.WriteString(c, "begin")
	for w.show(id)["status"] == "queued" {
		time.Sleep(time.Millisecond)
	}
	if a := w.do("DELETE", "/v2/images/"+id, nil); a.StatusCode != 204 {
		t.Fatalf("delete: %d %s", a.StatusCode, a.body)
	}
	c.Write(make([]byte, 1000000-5))
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 410 {
		t.Errorf("%v %v", res, err)
	}
	w.nothingLeft("")
}

func TestAnImageWithoutDataAnswers204(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	if a := w.do("GET", "/v2/images/"+id+"/file", nil); a.StatusCode != 204 || len(a.body) != 0 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestAnImageThatIsStoredOnlySaysWhy(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(map[string]any{"disk_format": "vdi", "container_format": "ova"})
	w.upload(id, []byte("not a disk"))
	if img := w.show(id); img["status"] != "active" || !strings.Contains(fmt.Sprint(img["os_glance_disk_error"]), "vdi") {
		t.Errorf("%v", img)
	}
	raw := w.create(nil)
	w.upload(raw, []byte("a disk"))
	if _, there := w.show(raw)["os_glance_disk_error"]; there {
		t.Error("a readable image has a disk error")
	}
}
