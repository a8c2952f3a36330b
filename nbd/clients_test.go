package nbd

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"glanced/contrib/testbed"
)

// Disks of every path through the server: copied from memory, sent from a file,
// and of a length that no block size divides.
func clientDisks(t testing.TB) []*disk {
	a := newDisk("memory", mixed(9<<20))
	a.description = "a disk in memory"
	return []*disk{a, newDisk("file", mixed(9<<20)).onFile(t), newDisk("odd", mixed(3<<20+777)).onFile(t), newDisk("tên-đĩa-磁碟", mixed(1<<20))}
}

func TestNbdcopyReadsEveryDiskIdentically(t *testing.T) {
	testbed.Need(t, "nbdcopy", "libnbd-bin")
	disks := clientDisks(t)
	_, unix, tcp := serve(t, Config{Exports: newLibrary(disks...)})
	for _, d := range disks[:3] {
		for network, uri := range uris(d.name, unix, tcp) {
			for _, options := range [][]string{nil, {"--no-extents"}, {"--connections=1", "--requests=64", "--request-size=32768"}, {"--request-size=4096", "--synchronous"}} {
				t.Run(d.name+"/"+network+strings.Join(options, ""), func(t *testing.T) {
					out := filepath.Join(t.TempDir(), "copy")
					tool(t, "nbdcopy", append(options, uri, out)...)
					got, err := os.ReadFile(out)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, d.data) {
						t.Errorf("the copy differs: %d bytes of %d", len(got), len(d.data))
					}
				})
			}
		}
	}
}

func TestNbdinfoSeesWhatTheServerOffers(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	disks := clientDisks(t)
	_, unix, tcp := serve(t, Config{Exports: newLibrary(disks...)})
	for network, uri := range uris("memory", unix, tcp) {
		var seen struct {
			Protocol   string
			Structured bool
			Exports    []struct {
				Name        string `json:"export-name"`
				Description string
				Contexts    []string
				ReadOnly    bool  `json:"is_read_only"`
				Cache       bool  `json:"can_cache"`
				DF          bool  `json:"can_df"`
				Flush       bool  `json:"can_flush"`
				Multi       bool  `json:"can_multi_conn"`
				Trim        bool  `json:"can_trim"`
				Zero        bool  `json:"can_zero"`
				Min         int64 `json:"block_size_minimum"`
				Preferred   int64 `json:"block_size_preferred"`
				Max         int64 `json:"block_size_maximum"`
				Size        int64 `json:"export-size"`
			}
		}
		out := tool(t, "nbdinfo", "--json", uri)
		if err := json.Unmarshal([]byte(out), &seen); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if seen.Protocol != "newstyle-fixed" || !seen.Structured || len(seen.Exports) != 1 {
			t.Fatalf("%s: %s", network, out)
		}
		e := seen.Exports[0]
		if e.Name != "memory" || e.Description != "a disk in memory" || e.Size != 9<<20 ||
			len(e.Contexts) != 1 || e.Contexts[0] != "base:allocation" {
			t.Errorf("%s: %s", network, out)
		}
		if !e.ReadOnly || !e.Cache || !e.DF || !e.Flush || !e.Multi || e.Trim || e.Zero {
			t.Errorf("%s: flags: %s", network, out)
		}
		if e.Min != 1 || e.Preferred != 64<<10 || e.Max != 32<<20 {
			t.Errorf("%s: block sizes: %s", network, out)
		}
		if got := strings.TrimSpace(tool(t, "nbdinfo", "--size", uri)); got != "9437184" {
			t.Errorf("%s: --size says %s", network, got)
		}
	}
}

func TestNbdinfoListsEveryExport(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	testbed.Need(t, "qemu-nbd", "qemu-utils")
	disks := clientDisks(t)
	_, unix, _ := serve(t, Config{Exports: newLibrary(disks...)})
	for _, out := range []string{
		tool(t, "nbdinfo", "--list", "nbd+unix:///?socket="+unix.Addr().String()),
		tool(t, "qemu-nbd", "--list", "--socket="+unix.Addr().String()),
	} {
		for _, d := range disks {
			if !strings.Contains(out, d.name) {
				t.Errorf("%q is missing in:\n%s", d.name, out)
			}
		}
	}
	eventually(t, "all exports closed", func() bool {
		n := int64(0)
		for _, d := range disks {
			n += d.open.Load()
		}
		return n == 0
	})
}

func TestNbdinfoMapIsTheTruth(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	d := newDisk("d", mixed(40<<20))
	_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	for network, uri := range uris("d", unix, tcp) {
		var runs []struct {
			Offset, Length int64
			Type           int
		}
		if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--map", "--json", uri)), &runs); err != nil {
			t.Fatal(err)
		}
		end := int64(0)
		for _, r := range runs {
			if r.Offset != end || r.Type != 0 && r.Type != 3 {
				t.Fatalf("%s: %+v after %d", network, r, end)
			}
			end += r.Length
			h := layout{d}
			for off := r.Offset; off < end; off += block {
				if h.zero(off) != (r.Type == 3) {
					t.Fatalf("%s: offset %d is type %d", network, off, r.Type)
				}
			}
		}
		if end != 40<<20 {
			t.Errorf("%s: the map ends at %d", network, end)
		}
	}
}

func TestQemuReadsEveryDiskIdentically(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Need(t, "qemu-io", "qemu-utils")
	disks := clientDisks(t)
	_, unix, tcp := serve(t, Config{Exports: newLibrary(disks...)})
	for _, d := range disks[:2] {
		raw := filepath.Join(t.TempDir(), "truth")
		if err := os.WriteFile(raw, d.data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, uri := range uris(d.name, unix, tcp) {
			if out := tool(t, "qemu-img", "info", uri); !strings.Contains(out, "9 MiB") {
				t.Errorf("info: %s", out)
			}
			if out := tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, raw); !strings.Contains(out, "identical") {
				t.Errorf("compare: %s", out)
			}
			out := filepath.Join(t.TempDir(), "copy.qcow2")
			tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, out)
			if out := tool(t, "qemu-img", "compare", "-F", "raw", out, raw); !strings.Contains(out, "identical") {
				t.Errorf("convert: %s", out)
			}
			if out := tool(t, "qemu-io", "-r", "-f", "raw", "-c", "read 513 70000", "-c", "map", uri); !strings.Contains(out, "read 70000/70000") {
				t.Errorf("qemu-io: %s", out)
			}
			if out, err := toolErr(t, "qemu-io", "-f", "raw", "-c", "write 0 512", uri); err == nil {
				t.Errorf("a write went through: %s", out)
			}
		}
	}
}

func TestNbdshSeesErrorsOfOneRequestAndGoesOn(t *testing.T) {
	testbed.Need(t, "nbdsh", "python3-libnbd")
	// Its module belongs to the Python installed beside it, perhaps not to the first one on the path.
	if nbdsh, err := exec.LookPath("nbdsh"); err == nil {
		t.Setenv("PATH", filepath.Dir(nbdsh)+":"+os.Getenv("PATH"))
	}
	d := newDisk("d", mixed(2<<20))
	_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	for _, structured := range []string{"True", "False"} {
		for _, uri := range uris("d", unix, tcp) {
			tool(t, "nbdsh", "-c", `
import errno
h.set_strict_mode(0)
h.set_request_structured_replies(`+structured+`)
h.add_meta_context("base:allocation")
h.connect_uri("`+uri+`")
assert h.get_structured_replies_negotiated() == `+structured+`
assert h.can_df() == `+structured+`
def fails(want, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errno == want, e
    else:
        assert False, "no error"
fails("EINVAL", lambda: h.pread(512, 2*1024*1024))
fails("EINVAL", lambda: h.pread(512, (1<<63) + 5))
fails("EPERM", lambda: h.pwrite(b"x" * 100000, 0))
fails("EPERM", lambda: h.trim(512, 0))
fails("EPERM", lambda: h.zero(512, 0))
h.flush()
h.cache(65536, 0)
assert len(h.pread(2*1024*1024, 0)) == 2*1024*1024
if `+structured+`:
    one = []
    h.block_status(2*1024*1024, 0, lambda c, o, e, err: one.extend(e), nbd.CMD_FLAG_REQ_ONE)
    assert len(one) == 2, one
    h.pread(65536, 0, nbd.CMD_FLAG_DF)
else:
    fails("EINVAL", lambda: h.pread(65536, 0, nbd.CMD_FLAG_DF))
    fails("EINVAL", lambda: h.block_status(4096, 0, lambda c, o, e, err: 0))
h.shutdown()
`)
		}
	}
}
