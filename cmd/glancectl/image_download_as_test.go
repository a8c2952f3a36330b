package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// answerAs makes g answer the question for an image in another format with body,
// and its length where that is to be said.
func answerAs(g *server, format string, body []byte, length int) {
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/file") || r.URL.Query().Get("disk_format") != format {
			return false
		}
		if length >= 0 {
			w.Header().Set("Content-Length", strconv.Itoa(length))
		}
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		w.Write(body[len(body)/2:])
		return true
	})
}

func TestDownloadAsAnotherFormat(t *testing.T) {
	disk := sparseImage()
	for name, tt := range map[string]struct {
		body   []byte
		length int
	}{
		"raw":   {disk, len(disk)},
		"qcow2": {append([]byte("QFI\xfb"), disk...), len(disk) + 4},
		"vmdk":  {append([]byte("KDMV"), disk...), -1},
	} {
		t.Run(name, func(t *testing.T) {
			g := newServer(t)
			g.add("img", disk, nil)
			answerAs(g, name, tt.body, tt.length)
			out := filepath.Join(t.TempDir(), "out")
			r := g.do("image", "download", "img", "--as", name, "--file", out, "--progress")
			r.ok()
			if !strings.Contains(r.err, "not verified against the stored hash") || !strings.Contains(r.err, "download") {
				t.Errorf("said %q", r.err)
			}
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, tt.body) {
				t.Errorf("%d bytes are there of %d: %v", len(got), len(tt.body), err)
			}
			onlyFile(t, out, true)
			if out := g.do("image", "download", "img", "--as", name).ok(); out != string(tt.body) {
				t.Error("standard output got something else")
			}
		})
	}
}

func TestDownloadAsThatIsCutShortOrNotConvertedLeavesNothing(t *testing.T) {
	disk := sparseImage()
	for name, tt := range map[string]struct {
		as     string
		body   []byte
		length int
		says   string
	}{
		"raw cut short":       {"raw", disk[:1<<20], len(disk), "after 1048576 bytes"},
		"raw of another disk": {"raw", disk[:1<<20], 1 << 20, "a disk of 3145851"},
		"raw, no length":      {"raw", disk[:1<<20], -1, "a disk of 3145851"},
		"qcow2 as stored":     {"qcow2", disk, len(disk), "does not begin like qcow2"},
		"nothing":             {"vmdk", nil, -1, "does not begin like vmdk"},
		"qcow2 cut short":     {"qcow2", []byte("QFI\xfb and no more"), 1 << 20, "after 16 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newServer(t)
			g.add("img", disk, nil)
			answerAs(g, tt.as, tt.body, tt.length)
			out := filepath.Join(t.TempDir(), "out")
			g.do("image", "download", "img", "--as", tt.as, "--file", out).fails(exitFailed, tt.says)
			onlyFile(t, out, false)
		})
	}
	g := newServer(t)
	g.add("img", disk, nil)
	g.forget()
	g.do("image", "download", "img", "--as", "vdi").fails(exitUsage, `"vdi" is not one of raw, qcow2, vmdk`)
	if asked := g.asked(""); len(asked) > 0 {
		t.Errorf("wrong usage reached the server: %q", asked)
	}
	// A server that does not convert, or this image not, says so.
	g.refuseWith("GET", "/file", 400, "This image cannot be sent as vmdk.")
	g.do("image", "download", "img", "--as", "vmdk").fails(exitFailed, "cannot be sent as vmdk")
}

func TestTheServersConversionsAreTheDisk(t *testing.T) {
	guest := guestDisk(t)
	stored := filepath.Join(t.TempDir(), "disk.qcow2")
	qemuImg(t, "convert", "-c", "-f", "raw", "-O", "qcow2", guest, stored)
	data, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	g := newServer(t)
	g.add("img", data, map[string]any{"disk_format": "qcow2"})
	for _, as := range []string{"raw", "qcow2", "vmdk"} {
		out := filepath.Join(t.TempDir(), "out")
		g.do("image", "download", "img", "--as", as, "--file", out).ok()
		qemuImg(t, "compare", "-f", as, "-F", "raw", out, guest)
	}
}
