package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// sparseImage is data with long runs of zeros, not aligned to anything, and at the end.
func sparseImage() []byte {
	data := make([]byte, 3<<20+123)
	r := rand.NewChaCha8([32]byte{1})
	for _, at := range [][2]int{{0, 10_000}, {1<<20 + 777, 1<<20 + 99_999}, {2 << 20, 2<<20 + 1}} {
		r.Read(data[at[0]:at[1]])
	}
	return data
}

// onlyFile fails the test unless the folder of path holds path alone, or nothing
// where want is false.
func onlyFile(t *testing.T, path string, want bool) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if want != (len(entries) == 1) || (!want && len(entries) > 0) {
		t.Errorf("the folder holds %v", entries)
	}
}

func TestDownloadIsByteIdenticalAndSparse(t *testing.T) {
	g := newServer(t)
	data := sparseImage()
	g.add("img", data, nil)
	out := filepath.Join(t.TempDir(), "out.raw")
	r := g.do("image", "download", "img", "--file", out)
	if r.ok() != "" || !strings.Contains(r.err, "out.raw") {
		t.Errorf("printed %q and %q", r.out, r.err)
	}
	got, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes downloaded differ from %d stored: %v", len(got), len(data), err)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := info.Sys().(*syscall.Stat_t).Blocks * 512; blocks > 256<<10 {
		t.Errorf("%d bytes are allocated for some 110 KiB of data", blocks)
	}
	if info.Mode().Perm() != 0o666&^umask() {
		t.Errorf("the file's mode is %v", info.Mode())
	}
	onlyFile(t, out, true)
	if out := g.do("image", "download", "img").ok(); out != string(data) {
		t.Error("standard output got something else")
	}
}

func TestDownloadThatIsNotWhatWasStoredLeavesNothing(t *testing.T) {
	data := sparseImage()
	for name, tt := range map[string]struct {
		spoil func(g *server, id string)
		says  string
	}{
		"a changed byte": {func(g *server, id string) {
			changed := bytes.Clone(data)
			changed[99] ^= 1
			g.instead("/file", changed)
		}, "sha512"},
		"md5 only": {func(g *server, id string) {
			img := g.find(id)
			img["os_hash_algo"], img["os_hash_value"], img["checksum"] = nil, nil, strings.Repeat("0", 32)
			g.instead("/v2/images", []byte(jsonText(map[string]any{"images": []any{img}})))
		}, "md5"},
		"cut short": {func(g *server, id string) { g.instead("/file", data[:len(data)-5]) }, "got 3145846 bytes of 3145851"},
		"broken off": {func(g *server, id string) {
			g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/file") {
					return false
				}
				w.Header().Set("Content-Length", "3145851")
				w.Write(data[:1<<20])
				panic(http.ErrAbortHandler)
			})
		}, "after 1048576 bytes"},
		"empty of data": {func(g *server, id string) {
			g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/file") {
					return false
				}
				w.WriteHeader(http.StatusNoContent)
				return true
			})
		}, "no data yet"},
		"forbidden": {func(g *server, _ string) {
			g.refuseWith("GET", "/file", 403, "The requested image has been deactivated.")
		}, "has been deactivated"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newServer(t)
			tt.spoil(g, g.add("img", data, nil))
			out := filepath.Join(t.TempDir(), "out")
			g.do("image", "download", "img", "--file", out).fails(exitFailed, tt.says)
			onlyFile(t, out, false)
		})
	}
}

func TestDownloadKeepsTheOldFileUntilTheNewOneIsRight(t *testing.T) {
	g := newServer(t)
	g.add("img", []byte("new"), nil)
	old := writeFile(t, "file", []byte("old"))
	if err := os.Chmod(old, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(old, link); err != nil {
		t.Fatal(err)
	}
	g.instead("/file", []byte("bad"))
	g.do("image", "download", "img", "--file", link).fails(exitFailed, "not what was stored")
	if b, _ := os.ReadFile(old); string(b) != "old" {
		t.Errorf("a failed download left %q", b)
	}
	g.refuse(nil)
	g.do("image", "download", "img", "--file", link).ok()
	b, _ := os.ReadFile(old)
	info, err := os.Lstat(link)
	if err != nil || string(b) != "new" || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("behind the link is %q, the link is %v, %v", b, info.Mode(), err)
	}
	if info, _ := os.Stat(old); info.Mode().Perm() != 0o600 {
		t.Errorf("the old file's mode became %v", info.Mode())
	}
}

func TestDownloadIntoAPipeWritesThroughIt(t *testing.T) {
	g := newServer(t)
	data := sparseImage()
	g.add("img", data, nil)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte)
	go func() {
		b, _ := os.ReadFile(pipe)
		got <- b
	}()
	g.do("image", "download", "img", "--file", pipe).ok()
	if !bytes.Equal(<-got, data) {
		t.Error("the pipe carried something else")
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe became %v, %v", info.Mode(), err)
	}
}

func TestAQueuedImageHasNothingToDownload(t *testing.T) {
	g := newServer(t)
	id := g.add("later", nil, nil)
	g.do("image", "download", "later").fails(exitFailed, "no data yet", "queued", "glancectl image upload "+id)
}

func TestUploadFillsAQueuedImageOnce(t *testing.T) {
	g := newServer(t)
	id := g.add("later", nil, nil)
	data := sparseImage()
	file := writeFile(t, "disk", data)
	g.do("image", "upload", "later", file, "--progress").ok()
	if !bytes.Equal(g.stored(id), data) {
		t.Error("something else arrived")
	}
	g.do("image", "upload", "later", file).fails(exitFailed, "transition from active to saving is not allowed", "409", "image show")
}

func TestProgressIsShownOnlyWhenAskedForOrOnATerminal(t *testing.T) {
	g := newServer(t)
	g.add("img", sparseImage(), nil)
	if r := g.do("image", "download", "img"); r.ok() == "" || r.err != "" {
		t.Errorf("without --progress stderr says %q", r.err)
	}
	if r := g.do("image", "download", "img", "--progress"); r.ok() == "" || !strings.Contains(r.err, "100.00%") {
		t.Errorf("with --progress stderr says %q", r.err)
	}
}

func TestInterruptEndsADownloadWithoutATrace(t *testing.T) {
	g := newServer(t)
	g.add("img", sparseImage(), nil)
	under := make(chan struct{})
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/file") {
			return false
		}
		w.Write(make([]byte, 1<<20))
		w.(http.Flusher).Flush()
		close(under)
		<-r.Context().Done()
		return true
	})
	out := filepath.Join(t.TempDir(), "out")
	cmd := process(t, "--socket", g.socket, "image", "download", "img", "--file", out)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-under
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || errs.String() != "glancectl: interrupted\n" {
		t.Errorf("exit code %d, stderr %q", cmd.ProcessState.ExitCode(), errs.String())
	}
	onlyFile(t, out, false)
}

func TestInterruptOfAnUploadTakesTheRecordBack(t *testing.T) {
	g := newServer(t)
	under := make(chan struct{})
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/file") {
			return false
		}
		if _, err := io.ReadFull(r.Body, make([]byte, 1<<16)); err == nil {
			close(under)
		}
		io.Copy(io.Discard, r.Body)
		return true
	})
	cmd := process(t, "--socket", g.socket, "image", "create", "--name", "cut", "--disk-format", "raw", "--file", "-")
	in, err := cmd.StdinPipe() // stays open: the program waits for more
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	<-under
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(errs.String(), "interrupted") || !strings.Contains(errs.String(), "deleted again") {
		t.Errorf("exit code %d, stderr %q", cmd.ProcessState.ExitCode(), errs.String())
	}
	if left := g.names(); len(left) > 0 {
		t.Errorf("records left: %q", left)
	}
}
