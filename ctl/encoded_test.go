package ctl_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/contrib/testbed"
)

// qemuImg runs qemu-img, and is its output.
func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	return qemu(t, "qemu-img", args...)
}

// qemu runs a program of qemu-utils.
func qemu(t *testing.T, program string, args ...string) string {
	t.Helper()
	testbed.Need(t, program, "qemu-utils")
	return testbed.Run(t, program, args...)
}

// guest is a disk with text, noise and holes in it, that ends within a cluster.
func guest() []byte {
	disk := make([]byte, 9<<20+3*512)
	copy(disk, randomBytes(1<<20+777))
	copy(disk[3<<20:], bytes.Repeat([]byte("云计算平台的虚拟磁盘 đĩa ảo\n"), 30_000))
	copy(disk[len(disk)-512:], randomBytes(512))
	return disk
}

// uploadedQcow2 uploads disk as a compressed qcow2.
func (w *world) uploadedQcow2(disk []byte) (id, raw string) {
	w.t.Helper()
	dir := w.t.TempDir()
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		w.t.Fatal(err)
	}
	qemuImg(w.t, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
	data, err := os.ReadFile(image)
	if err != nil {
		w.t.Fatal(err)
	}
	id = w.create(map[string]any{"disk_format": "qcow2"})
	w.upload(id, data)
	return id, raw
}

func TestADiskIsDownloadedInAnotherFormat(t *testing.T) {
	w := newWorld(t, options{})
	id, raw := w.uploadedQcow2(guest())
	for _, format := range []string{"raw", "qcow2", "vmdk"} {
		t.Run(format, func(t *testing.T) {
			a := w.do("GET", "/v2/images/"+id+"/file?disk_format="+format, nil)
			if a.StatusCode != 200 || a.Header.Get("Content-MD5") != "" || a.Header.Get("Content-Type") != "application/octet-stream" {
				t.Fatalf("%d, %v", a.StatusCode, a.Header)
			}
			if sized := format != "vmdk"; sized != (a.ContentLength == int64(len(a.body))) {
				t.Errorf("Content-Length %d of %d bytes", a.ContentLength, len(a.body))
			}
			path := filepath.Join(t.TempDir(), format)
			if err := os.WriteFile(path, a.body, 0o600); err != nil {
				t.Fatal(err)
			}
			if out := qemuImg(t, "compare", "-f", "raw", "-F", format, raw, path); !strings.Contains(out, "identical") {
				t.Error(out)
			}
			if format != "raw" {
				qemuImg(t, "check", "-f", format, path)
			}
			if format == "vmdk" {
				return
			}
			tag := a.Header.Get("ETag")
			if tag == "" {
				t.Fatal("no ETag")
			}
			rnd := rand.New(rand.NewPCG(5, 6))
			for range 30 {
				from := rnd.IntN(len(a.body))
				to := from + rnd.IntN(len(a.body)-from)
				part := w.do("GET", "/v2/images/"+id+"/file?disk_format="+format, nil, "Range", fmt.Sprintf("bytes=%d-%d", from, to), "If-Range", tag)
				if part.StatusCode != 206 || !bytes.Equal(part.body, a.body[from:to+1]) {
					t.Fatalf("bytes %d-%d: %d, %d bytes", from, to, part.StatusCode, len(part.body))
				}
			}
		})
	}
	stored := w.do("GET", "/v2/images/"+id+"/file", nil).Header.Get("ETag")
	if a := w.do("GET", "/v2/images/"+id+"/file?disk_format=raw", nil, "Range", "bytes=0-1", "If-Range", stored); a.StatusCode == 206 {
		t.Error("the tag of the stored bytes is good for those of the disk")
	}
}

func TestASnapshotIsDownloadedAsItWas(t *testing.T) {
	w := newWorld(t, options{})
	image := filepath.Join(t.TempDir(), "qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", image, "2M")
	qemu(t, "qemu-io", "-c", "write -P 1 0 1M", image)
	qemuImg(t, "snapshot", "-c", "before", image)
	qemu(t, "qemu-io", "-c", "write -P 2 512k 1M", image)
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	id := w.create(map[string]any{"disk_format": "qcow2"})
	w.upload(id, data)
	want := append(bytes.Repeat([]byte{1}, 1<<20), make([]byte, 1<<20)...)
	url := "/v2/images/" + id + "/file?snapshot=before"
	a := w.do("GET", url+"&disk_format=raw", nil)
	if a.StatusCode != 200 || !bytes.Equal(a.body, want) {
		t.Errorf("%d, and other bytes than the disk had", a.StatusCode)
	}
	if tag := a.Header.Get("ETag"); tag != "" {
		t.Errorf("it has the tag %s, as the disk may have", tag)
	}
	w.refused(w.do("GET", url, nil), 400, "disk_format", "raw, qcow2, vmdk")
	if got := w.show(id)["os_glance_snapshots"]; got != `["before"]` {
		t.Errorf("os_glance_snapshots is %v", got)
	}
}

func TestAnImageSaysWhatItStandsOnAndReadsOnWithoutIt(t *testing.T) {
	w := newWorld(t, options{})
	parent := w.create(nil)
	w.upload(parent, make([]byte, 1<<20))
	image := filepath.Join(t.TempDir(), "qcow2")
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-b", parent, "-F", "raw", image, "1M")
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	child := w.create(map[string]any{"disk_format": "qcow2"})
	w.upload(child, data)
	if got := w.show(child)["os_glance_backing_image"]; got != parent {
		t.Errorf("os_glance_backing_image is %v, want %s", got, parent)
	}
	for _, id := range []string{parent, child} {
		a := w.do("GET", "/v2/images/"+child+"/file?disk_format=raw", nil)
		if a.StatusCode != 200 || !bytes.Equal(a.body, make([]byte, 1<<20)) {
			t.Errorf("the child: %d", a.StatusCode)
		}
		if a := w.do("DELETE", "/v2/images/"+id, nil); a.StatusCode != 204 {
			t.Errorf("%d: %s", a.StatusCode, a.body)
		}
		if a := w.do("GET", "/v2/images/"+id, nil); a.StatusCode != 404 {
			t.Errorf("when it is deleted: %d", a.StatusCode)
		}
	}
}

// An answer without a length must not end well when it is not whole.
func TestAVMDKThatIsBrokenOffShowsIt(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	w.upload(id, randomBytes(64<<20)) // more than the sockets' buffers
	_, r := w.raw("GET /v2/images/" + id + "/file?disk_format=vmdk HTTP/1.1\r\nHost: x\r\nX-Auth-Token: demo-token\r\n\r\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	if a := w.do("DELETE", "/v2/images/"+id, nil); a.StatusCode != 204 {
		t.Fatalf("delete: %d", a.StatusCode)
	}
	if n, err := io.Copy(io.Discard, res.Body); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %d bytes of a deleted image: %v", n, err)
	}
}

func TestAClientThatTakesNoVMDKIsGivenUp(t *testing.T) {
	w := newWorld(t, options{stall: 50 * time.Millisecond})
	id := w.create(nil)
	// Past the door, which would give up a busy machine's upload as well.
	if err := w.catalog.Upload(t.Context(), id, bytes.NewReader(randomBytes(64<<20)), catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	c, _ := w.raw("GET /v2/images/" + id + "/file?disk_format=vmdk HTTP/1.1\r\nHost: x\r\nX-Auth-Token: demo-token\r\n\r\n")
	for {
		_, err := c.Write(make([]byte, 64<<10)) // fills the buffers, or finds the connection closed
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the server still waits for a client that takes nothing")
		}
		if err != nil {
			break
		}
	}
}

func TestADiskThatCannotBeDownloadedInAFormatSaysWhy(t *testing.T) {
	w := newWorld(t, options{})
	raw := w.create(nil)
	w.upload(raw, []byte("disk"))
	w.refused(w.do("GET", "/v2/images/"+raw+"/file?disk_format=vhdx", nil), 400, "raw, qcow2, vmdk", "vhdx")
	w.refused(w.do("GET", "/v2/images/"+raw+"/file?disk_format=qcow2&snapshot=x", nil), 404, "no such snapshot")
	w.refused(w.do("GET", "/v2/images/"+raw+"/file?disk_format=raw", nil, "Range", "bytes=9-"), 416)
	empty := w.create(nil)
	w.upload(empty, nil)
	w.refused(w.do("GET", "/v2/images/"+empty+"/file?disk_format=vmdk", nil), 409, "no bytes", "raw")
	docker := w.create(map[string]any{"container_format": "docker"})
	w.upload(docker, []byte("layers"))
	w.refused(w.do("GET", "/v2/images/"+docker+"/file?disk_format=qcow2", nil), 409, "container")
	w.refused(w.do("GET", "/v2/images/"+docker+"/file?disk_format=qcow2", nil, "X-Auth-Token", "alt-token"), 404)
}

// Another disk than the one asked for is worse than none.
func TestAQueryThatCannotBeReadGetsNoOtherDisk(t *testing.T) {
	w := newWorld(t, options{})
	path := filepath.Join(t.TempDir(), "kept")
	qemuImg(t, "create", "-q", "-f", "qcow2", path, "1M")
	qemuImg(t, "snapshot", "-c", "100%", path)
	qemuImg(t, "snapshot", "-c", "a;b", path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id := w.create(map[string]any{"disk_format": "qcow2"})
	w.upload(id, data)
	for _, query := range []string{"disk_format=raw&snapshot=100%", "disk_format=raw&snapshot=", "disk_format=raw;", "disk_format=", "snapshot=a%3bb"} {
		w.refused(w.do("GET", "/v2/images/"+id+"/file?"+query, nil), 400)
	}
	for _, query := range []string{"disk_format=raw&snapshot=100%25", "disk_format=raw&snapshot=a;b", "disk_format=raw&snapshot=a%3bb"} {
		if a := w.do("GET", "/v2/images/"+id+"/file?"+query, nil); a.StatusCode != 200 || len(a.body) != 1<<20 || a.Header.Get("ETag") != "" {
			t.Errorf("%s: %d, %d bytes, tag %q", query, a.StatusCode, len(a.body), a.Header.Get("ETag"))
		}
	}
}

// What is sent of a huge disk must not be held.
func TestAHugeSparseDiskIsEncodedInLittleMemory(t *testing.T) {
	w := newWorld(t, options{})
	path := filepath.Join(t.TempDir(), "huge")
	qemuImg(t, "create", "-q", "-f", "qcow2", path, "1T")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id := w.create(map[string]any{"disk_format": "qcow2"})
	w.upload(id, data)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, format := range []string{"qcow2", "vmdk"} {
		a := w.do("GET", "/v2/images/"+id+"/file?disk_format="+format, nil)
		if a.StatusCode != 200 || len(a.body) > 16<<20 {
			t.Errorf("%s: %d, %d bytes", format, a.StatusCode, len(a.body))
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 128<<20 {
		t.Errorf("%d bytes were allocated on the way", grown)
	}
}
