package qcow2_test

import (
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

func inspect(t *testing.T, src stored.Bytes) formats.Info {
	t.Helper()
	info, err := qcow2.Driver().Inspect(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestBitmapsOfQemuAreListed(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for _, options := range []string{"cluster_size=512", "compat=1.1", "cluster_size=2M,extended_l2=on"} {
		path := filepath.Join(t.TempDir(), "image")
		testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "10M")
		if got := inspect(t, formattest.OpenFile(t, path)).Bitmaps; got != nil {
			t.Errorf("%s: none were made, got %q", options, got)
		}
		want := []string{"changes", strings.Repeat("long", 255) + "!!!", "位图"}
		for _, name := range want {
			testbed.Run(t, "qemu-img", "bitmap", "--add", path, name)
		}
		qemuIO(t, path, "write -P 3 64k 64k")
		info := inspect(t, formattest.OpenFile(t, path))
		got := slices.Sorted(slices.Values(info.Bitmaps)) // QEMU changes their order
		if slices.Sort(want); !slices.Equal(got, want) || info.Refused != nil {
			t.Errorf("%s: got %q, refused %v, want %q", options, got, info.Refused, want)
		}
		formattest.Image{Driver: qcow2.Driver(), Path: path, QemuFormat: "qcow2"}.Compare(t, options)
	}
}

// bitmaps appends a directory with these names, and the extension that points to it.
func (img *image) bitmaps(names ...string) {
	img.b = append(img.b, make([]byte, -len(img.b)&(cluster-1))...)
	img.autoclear |= 1
	off := len(img.b)
	for _, name := range names {
		e := make([]byte, 24, 24+len(name)+7)
		binary.BigEndian.PutUint64(e, dataAt)
		e[16], e[17] = 1, 16
		binary.BigEndian.PutUint16(e[18:], uint16(len(name)))
		e = append(e, name...)
		img.b = append(img.b, e...)
		img.b = append(img.b, make([]byte, -len(e)&7)...)
	}
	x := binary.BigEndian.AppendUint64(nil, uint64(len(names))<<32)
	x = binary.BigEndian.AppendUint64(x, uint64(len(img.b)-off))
	x = binary.BigEndian.AppendUint64(x, uint64(off))
	img.extend(0x23852875, x)
}

// Without the autoclear bit, whoever wrote the disk last did not know of bitmaps:
// the extension says nothing, however wrong it is.
func TestBitmapsAreListedOnlyWhereTheAutoclearBitSaysSo(t *testing.T) {
	img := newImage(t)
	img.bitmaps("a", "b")
	if got := inspect(t, formattest.Memory(img.bytes())).Bitmaps; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
	img.autoclear = 2
	copy(img.extensions[8:], strings.Repeat("\xff", 24))
	if info := inspect(t, formattest.Memory(img.bytes())); info.Bitmaps != nil || info.Refused != nil {
		t.Errorf("without the bit: %q, refused %v", info.Bitmaps, info.Refused)
	}
}

func TestHostileBitmapsAreRefused(t *testing.T) {
	type edit func(i *image, ext, dir []byte)
	for name, c := range map[string]struct {
		edit edit
		want error
	}{
		"none":                            {func(_ *image, x, _ []byte) { x[3] = 0 }, formats.ErrCorrupt},
		"reserved bytes":                  {func(_ *image, x, _ []byte) { x[7] = 1 }, formats.ErrCorrupt},
		"65536 bitmaps":                   {func(_ *image, x, _ []byte) { x[1], x[3] = 1, 0 }, formats.ErrLimit},
		"a short extension":               {func(i *image, _, _ []byte) { i.extensions[7] = 16 }, formats.ErrCorrupt},
		"a directory over 64 MiB":         {func(_ *image, x, _ []byte) { x[12] = 4 }, formats.ErrLimit},
		"the largest directory":           {func(_ *image, x, _ []byte) { binary.BigEndian.PutUint64(x[8:], math.MaxUint64) }, formats.ErrLimit},
		"a directory longer than a file":  {func(_ *image, x, _ []byte) { x[13] = 1 }, formats.ErrCorrupt},
		"an unaligned directory":          {func(_ *image, x, _ []byte) { x[23] = 8 }, formats.ErrCorrupt},
		"a directory in the header":       {func(_ *image, x, _ []byte) { clear(x[16:24]) }, formats.ErrCorrupt},
		"a directory past the end":        {func(_ *image, x, _ []byte) { binary.BigEndian.PutUint64(x[16:], 1<<62) }, formats.ErrCorrupt},
		"a directory beyond the numbers":  {func(_ *image, x, _ []byte) { binary.BigEndian.PutUint64(x[16:], 1<<64-cluster) }, formats.ErrCorrupt},
		"more entries than the directory": {func(_ *image, x, _ []byte) { x[3] = 9 }, formats.ErrCorrupt},
		"fewer entries":                   {func(_ *image, x, _ []byte) { x[3] = 1 }, formats.ErrCorrupt},
		"a directory of 0 bytes":          {func(_ *image, x, _ []byte) { x[15] = 0 }, formats.ErrCorrupt},
		"no name":                         {func(_ *image, _, d []byte) { d[19] = 0 }, formats.ErrCorrupt},
		"a long name":                     {func(_ *image, _, d []byte) { d[18] = 4 }, formats.ErrCorrupt},
		"a name past the directory":       {func(_ *image, _, d []byte) { d[19] = 200 }, formats.ErrCorrupt},
		"4 GiB of extra data":             {func(_ *image, _, d []byte) { binary.BigEndian.PutUint32(d[20:], math.MaxUint32) }, formats.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			img := newImage(t)
			img.bitmaps("one", "two")
			c.edit(img, img.extensions[8:], img.b[6*cluster:])
			formattest.Refuse(t, qcow2.Driver(), img.bytes(), c.want)
		})
	}
}

// A directory that QEMU accepts and nobody makes: it is not read whole, and is no
// reason to refuse the disk.
func TestOfManyBitmapsTheFirstAreListed(t *testing.T) {
	img := newImage(t)
	names := slices.Repeat([]string{strings.Repeat("n", 1000)}, 5000)
	img.bitmaps(names...)
	src := formattest.Memory(img.bytes())
	info := inspect(t, src)
	if n := len(info.Bitmaps); info.Refused != nil || n < 1000 || n > 1100 || src.BytesRead() > 3<<20 {
		t.Errorf("%d are listed, refused %v, %d bytes read", n, info.Refused, src.BytesRead())
	}
}

func TestAReadErrorInTheBitmapsIsPassedOn(t *testing.T) {
	img := newImage(t)
	img.bitmaps("one")
	src := formattest.Memory(img.bytes())
	inspect(t, src)
	again := formattest.Memory(img.bytes())
	again.FailFrom(src.Reads())
	if _, err := qcow2.Driver().Inspect(t.Context(), again); !errors.Is(err, formattest.ErrInjected) {
		t.Errorf("got %v", err)
	}
}
