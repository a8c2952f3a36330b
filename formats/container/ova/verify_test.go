package ova_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"

	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/container/ova"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
)

var verified = []fileIn{oneDisk(), {"disk.img", strings.Repeat("the bytes of a disk\n", 40000)}, {"nvram", ""}}

func TestGoodManifestsPassWhereverTheyAre(t *testing.T) {
	for _, algorithm := range []string{"SHA1", "SHA256", "SHA512"} {
		mf := manifest(algorithm, verified...)
		for at := range len(verified) + 1 {
			files := append(append(append([]fileIn{}, verified[:at]...), mf), verified[at:]...)
			b := pack(t, files...)
			for _, n := range []int{1, 511, 70000, 10 << 20} {
				if n == 1 && at > 0 {
					continue
				}
				if err := verify(b, n); err != nil {
					t.Errorf("%s, the manifest is member %d, by %d bytes: %v", algorithm, at, n, err)
				}
			}
		}
	}
}

func TestChangedBytesAreFoundWhereverTheManifestIs(t *testing.T) {
	for _, algorithm := range []string{"SHA1", "SHA256", "SHA512"} {
		mf := manifest(algorithm, verified...)
		for at := range len(verified) + 1 {
			files := append(append(append([]fileIn{}, verified[:at]...), mf), verified[at:]...)
			b := pack(t, files...)
			b[strings.LastIndex(string(b), "the bytes")] ^= 1
			err := verify(b, 70000)
			if !errors.Is(err, container.ErrDigest) || !strings.Contains(err.Error(), "disk.img") {
				t.Errorf("%s, the manifest is member %d: %v", algorithm, at, err)
			}
		}
	}
}

func TestManifestsAsTheyAreWritten(t *testing.T) {
	disk := fileIn{"disk (1).img", "a disk"}
	sum1, sum256 := digest("SHA1", disk.content), digest("SHA256", disk.content)
	for name, c := range map[string]struct {
		mf   string
		want error
	}{
		"ovftool":                {"SHA256(disk (1).img)= " + sum256 + "\n", nil},
		"VirtualBox":             {"SHA1 (disk (1).img) = " + sum1 + "\n", nil},
		"no blanks":              {"SHA1(disk (1).img)=" + sum1, nil},
		"CRLF":                   {"SHA1(disk (1).img)= " + sum1 + "\r\nSHA256(disk (1).img)= " + sum256 + "\r\n\r\n", nil},
		"capitals":               {"sha256(disk (1).img)= " + strings.ToUpper(sum256) + "\n", nil},
		"empty":                  {"", nil},
		"one of two wrong":       {"SHA1(disk (1).img)= " + sum1 + "\nSHA256(disk (1).img)= " + strings.Repeat("0", 64), container.ErrDigest},
		"missing file":           {"SHA1(gone.img)= " + sum1 + "\n", container.ErrDigest},
		"itself":                 {"SHA1(vm.mf)= " + sum1 + "\n", container.ErrDigest},
		"unknown algorithm":      {"MD5(disk (1).img)= d41d8cd98f00b204e9800998ecf8427e\n", formats.ErrCorrupt},
		"digest of other length": {"SHA256(disk (1).img)= " + sum1 + "\n", formats.ErrCorrupt},
		"not hexadecimal":        {"SHA1(disk (1).img)= " + strings.Repeat("g", 40) + "\n", formats.ErrCorrupt},
		"not a manifest":         {"hello\n", formats.ErrCorrupt},
		"binary":                 {"\x00\x01(\xff)=\n", formats.ErrCorrupt},
		"long":                   {strings.Repeat("\n", 1<<20+1), formats.ErrLimit},
	} {
		for at, files := range [][]fileIn{{{"vm.mf", c.mf}, disk}, {disk, {"vm.mf", c.mf}}} {
			if err := verify(pack(t, files...), 1000); !errors.Is(err, c.want) {
				t.Errorf("%s (%d): %v, want %v", name, at, err, c.want)
			}
		}
	}
	if err := verify(pack(t, fileIn{"a.mf", ""}, fileIn{"b.mf", ""}), 1000); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("two manifests: %v", err)
	}
}

func TestWithoutAManifestAndWithACertificateIsFine(t *testing.T) {
	if err := verify(pack(t, verified...), 4096); err != nil {
		t.Error(err)
	}
	if err := verify(pack(t, append([]fileIn{manifest("SHA256", verified...), {"vm.cert", "-----BEGIN"}, {"extra", "not listed"}}, verified...)...), 4096); err != nil {
		t.Error(err)
	}
}

func TestBytesAfterTheEndAreIgnored(t *testing.T) {
	b := append(pack(t, append(verified, manifest("SHA1", verified...))...), strings.Repeat("anything at all ", 100000)...)
	if err := verify(b, 5000); err != nil {
		t.Error(err)
	}
}

func TestAMismatchEndsTheStreamEarly(t *testing.T) {
	bad := fileIn{"disk.img", "other content"}
	b := pack(t, manifest("SHA1", fileIn{"disk.img", "content"}), bad, fileIn{"rest", strings.Repeat("x", 1<<20)})
	v := ova.Container().Verify()
	written := 0
	var err error
	for ; written < len(b) && err == nil; written += 512 {
		_, err = v.Write(b[written : written+512])
	}
	if !errors.Is(err, container.ErrDigest) || written > 16<<10 {
		t.Errorf("after %d bytes: %v", written, err)
	}
	if err := v.Close(); !errors.Is(err, container.ErrDigest) {
		t.Errorf("Close: %v", err)
	}
}

func TestCloseEndsWhatRunsWhereverTheStreamStopped(t *testing.T) {
	b := pack(t, append(verified, manifest("SHA1", verified...))...)
	before := runtime.NumGoroutine()
	for range 200 {
		v := ova.Container().Verify()
		n := rand.IntN(len(b))
		if _, err := v.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		v.Close()
		if _, err := v.Write(b[n:]); err == nil {
			t.Fatal("it takes bytes after Close")
		}
	}
	if now := runtime.NumGoroutine(); now > before+2 {
		t.Errorf("%d goroutines, there were %d", now, before)
	}
}

// FuzzOpenOVA holds Open and Verify against each other: an archive that opens can
// be followed, and one that cannot be followed does not open.
func FuzzOpenOVA(f *testing.F) {
	f.Add(pack(f, append(verified[:1:1], fileIn{"disk.img", "x"}, manifest("SHA1", verified[0]))...))
	f.Add(pack(f, manifest("SHA256", verified[0]), verified[0], fileIn{"disk.img", "x"}))
	f.Add(pack(f, fileIn{"disk.img", "x"}, fileIn{"vm.ovf", virtualBoxOVF("disk.img")}))
	f.Add(pack(f, fileIn{strings.Repeat("long/", 60) + "x", "y"}, fileIn{"disk.img", "x"}, fileIn{"vm.ovf", virtualBoxOVF("disk.img")}))
	f.Add(pack(f, fileIn{"disk.img", "x"}, fileIn{"vm.ovf", virtualCenterOVF("disk.img")}))
	f.Add(pack(f, fileIn{"./disks//disk.img", "x"}, fileIn{"vm.ovf", virtualCenterOVF("disks/disk.img")}, manifest("SHA1", fileIn{"./disks/disk.img", "x"})))
	f.Add(pack(f, fileIn{"g/v", "x"}, fileIn{"vm.ovf", oVirtOVF("g/v", 7)}))
	for _, b := range hostile.ContainerSeeds("ova") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src := formattest.Memory(b)
		o, opened := open(t, src)
		followed := verify(b, 777)
		for _, err := range []error{opened, followed} {
			if err != nil && !sentinel(err) {
				t.Errorf("no sentinel in %v", err)
			}
		}
		if opened != nil {
			return
		}
		if o.Image.Size() < 0 || o.Image.Size() > int64(len(b)) {
			t.Fatalf("an image of %d bytes in %d", o.Image.Size(), len(b))
		}
		content(t, o.Image)
		if strings.HasPrefix(o.Name, "/") || slices.Contains(strings.Split(o.Name, "/"), "..") || path.Clean(o.Name) != o.Name {
			t.Errorf("the image is called %q", o.Name)
		}
		if followed != nil && !errors.Is(followed, container.ErrDigest) && !strings.Contains(followed.Error(), "manifest") {
			t.Errorf("opens, and cannot be followed: %v", followed)
		}
	})
}

func sentinel(err error) bool {
	for _, s := range []error{formats.ErrFormat, formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrReference, formats.ErrLimit, container.ErrNoDisk, container.ErrDigest} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

func BenchmarkVerify(b *testing.B) {
	disk := fileIn{"disk.img", strings.Repeat("0123456789abcdef", 4<<20)}
	for name, files := range map[string][]fileIn{
		"manifest first": {manifest("SHA256", disk), disk},
		"manifest last":  {disk, manifest("SHA256", disk)},
	} {
		archive := pack(b, files...)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(archive)))
			for range b.N {
				v := ova.Container().Verify()
				if _, err := io.CopyBuffer(struct{ io.Writer }{v}, struct{ io.Reader }{strings.NewReader(string(archive))}, make([]byte, 128<<10)); err != nil {
					b.Fatal(err)
				}
				if err := v.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
