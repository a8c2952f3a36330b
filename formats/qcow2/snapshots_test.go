package qcow2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

// shoot gives an image three snapshots, "before" (id 1), "grown" (2) and "shrunk"
// (3), of which the last two have sizes of their own where resize is set, and
// changes the active disk again.
func shoot(t *testing.T, path string, resize bool) {
	t.Helper()
	img := func(args ...string) { testbed.Run(t, "qemu-img", append(args, path)...) }
	size := func(args ...string) {
		if resize {
			testbed.Run(t, "qemu-img", args...)
		}
	}
	img("snapshot", "-c", "before")
	qemuIO(t, path, "write -P 1 0 200k", "discard 512k 512k")
	size("resize", "-q", path, "5M")
	if resize {
		qemuIO(t, path, "write -P 2 4000k 100k")
	}
	img("snapshot", "-c", "grown")
	size("resize", "-q", "--shrink", path, "1100k")
	qemuIO(t, path, "write -P 3 100k 200k", "discard 512k 64k", "write -c -P 4 512k 64k")
	img("snapshot", "-c", "shrunk")
	size("resize", "-q", path, "2M")
	qemuIO(t, path, "write -z 0 1M", "write -P 5 64k 1k")
}

// reverted is a copy of an image whose active disk is the snapshot.
func reverted(t *testing.T, path, snapshot string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "reverted")
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "qemu-img", "snapshot", "-a", snapshot, to)
	return to
}

// sameAsConverted compares a snapshot with what qemu-img convert -l reads, as far
// as that goes: it stops at the size of the active disk.
func sameAsConverted(t *testing.T, img formattest.Image, snapshot string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "snapshot.raw")
	testbed.Run(t, "qemu-img", "convert", "-f", "qcow2", "-l", "snapshot.name="+snapshot, "-O", "raw", img.Path, raw)
	want := formattest.OpenFile(t, raw)
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20})
	defer e.Close()
	got, err := e.Open(t.Context(), img.Driver, formattest.OpenFile(t, img.Path), img.Open)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	sameBytes(t, min(want.Size(), got.Size()),
		func(p []byte, off int64) error { return got.ReadAt(t.Context(), p, off) },
		func(p []byte, off int64) error { return want.ReadAt(t.Context(), p, off) })
}

func TestSnapshotsAreDisksOfTheirOwn(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	base := formattest.Truths[0].Make(t, t.TempDir())
	for i, c := range []struct {
		options string
		args    []string
		backed  bool
	}{
		{options: "compat=0.10"}, {options: "compat=0.10", args: []string{"-c"}},
		{options: "compat=1.1"}, {options: "compat=1.1", args: []string{"-c"}}, {options: "compat=1.1", backed: true},
		{options: "cluster_size=512"},
		{options: "compression_type=zstd", args: []string{"-c"}},
		{options: "compression_type=zstd,cluster_size=4k", backed: true},
		{options: "extended_l2=on"}, {options: "extended_l2=on,cluster_size=16k", args: []string{"-c"}},
		{options: "extended_l2=on,compression_type=zstd", backed: true},
	} {
		name := c.options + strings.Join(c.args, "")
		if c.backed {
			name += " backed"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			img := formattest.Image{Driver: qcow2.Driver(), Path: path, QemuFormat: "qcow2", Seed: uint64(i)}
			if c.backed {
				testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", c.options, "-b", base, "-F", "raw", path)
				img.Open.Parent = newResolver(t, map[string]string{base: base}).disk
			} else {
				args := append([]string{"convert", "-f", "raw", "-O", "qcow2", "-o", c.options}, c.args...)
				testbed.Run(t, "qemu-img", append(args, base, path)...)
			}
			resize := c.options != "compat=0.10" // QEMU resizes no version 2 image that has snapshots
			shoot(t, path, resize)
			img.Compare(t, "the active disk")
			for i, snapshot := range []string{"before", "grown", "shrunk"} {
				img.Truth = reverted(t, path, snapshot)
				img.Open.Snapshot = snapshot
				img.Compare(t, "snapshot "+snapshot)
				img.Open.Snapshot = fmt.Sprint(i + 1)
				sameAsConverted(t, img, snapshot)
			}
		})
	}
}

// snapshotOf opens a snapshot of a hand-made image.
func snapshotOf(t *testing.T, b []byte, snapshot string) (formats.Layout, error) {
	t.Helper()
	l, err := qcow2.Driver().Open(t.Context(), formattest.Memory(b), formats.Options{Snapshot: snapshot})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func TestASnapshotIsFoundByItsIDOrItsOnlyName(t *testing.T) {
	img := newImage(t)
	img.snapshotTable("one", "3", "one", "two")
	b := img.bytes()
	sizes := []int64{512, 1024, 1536, 2048} // to tell them apart
	at := int(img.snapshotsOff)
	for i, name := range []string{"one", "3", "one", "two"} {
		binary.BigEndian.PutUint64(b[at+48:], uint64(sizes[i]))
		at += (40 + 16 + 1 + len(name) + 7) &^ 7
	}
	for asked, want := range map[string]int64{"1": 512, "2": 1024, "3": 1536, "4": 2048, "two": 2048} {
		l, err := snapshotOf(t, b, asked)
		if err != nil {
			t.Errorf("%q: %v", asked, err)
			continue
		}
		if l.Size() != want || l.Info().VirtualSize != want || len(l.Info().Snapshots) != 4 {
			t.Errorf("%q: a disk of %d bytes, and %+v; want %d", asked, l.Size(), l.Info(), want)
		}
	}
	for asked, say := range map[string]string{
		"one":   `2 have the name "one"; ask for one by its id: "1" ("one"), "3" ("one")`,
		"three": `"three"; the image has "1" ("one"), "2" ("3"), "3" ("one"), "4" ("two")`,
		"5":     `"5"; the image has "1"`,
	} {
		_, err := snapshotOf(t, b, asked)
		if !errors.Is(err, formats.ErrSnapshot) || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v, want it to say %s", asked, err, say)
		}
	}
	if _, err := snapshotOf(t, newImage(t).bytes(), "1"); !errors.Is(err, formats.ErrSnapshot) || !strings.Contains(err.Error(), "has none") {
		t.Errorf("without snapshots: %v", err)
	}
}

func TestOfManySnapshotsAnErrorNamesTheFirst(t *testing.T) {
	img := newImage(t)
	img.snapshotTable(slices.Repeat([]string{strings.Repeat("long ", 1000)}, 200)...)
	_, err := snapshotOf(t, img.bytes(), "none of them")
	if !errors.Is(err, formats.ErrSnapshot) || len(err.Error()) > 4000 || !strings.HasSuffix(err.Error(), "and 184 more") {
		t.Errorf("got %v", err)
	}
}

// A damaged snapshot is refused when it is opened, and takes nothing with it.
func TestHostileSnapshotsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(i *image, entry []byte)
		want error
	}{
		"an L1 table that is too short":          {func(_ *image, e []byte) { e[11] = 1 }, formats.ErrCorrupt},
		"no L1 table":                            {func(_ *image, e []byte) { e[11] = 0 }, formats.ErrCorrupt},
		"an L1 table of 32 GiB":                  {func(_ *image, e []byte) { binary.BigEndian.PutUint32(e[8:], 1<<32-1) }, formats.ErrLimit},
		"an L1 table longer than the file":       {func(_ *image, e []byte) { binary.BigEndian.PutUint32(e[8:], 4<<20) }, formats.ErrCorrupt},
		"an unaligned L1 table":                  {func(_ *image, e []byte) { binary.BigEndian.PutUint64(e, l1At+512) }, formats.ErrCorrupt},
		"an L1 table over the header":            {func(_ *image, e []byte) { binary.BigEndian.PutUint64(e, 0) }, formats.ErrCorrupt},
		"an L1 table past the end":               {func(_ *image, e []byte) { binary.BigEndian.PutUint64(e, 1<<40) }, formats.ErrCorrupt},
		"an L1 table at the end of the numbers":  {func(_ *image, e []byte) { binary.BigEndian.PutUint64(e, 1<<63-cluster) }, formats.ErrCorrupt},
		"a size that its L1 table does not map":  {func(_ *image, e []byte) { binary.BigEndian.PutUint64(e[48:], 1<<40) }, formats.ErrCorrupt},
		"the largest size":                       {func(_ *image, e []byte) { binary.BigEndian.PutUint64(e[48:], 1<<63-1) }, formats.ErrCorrupt},
		"two of one id":                          {func(_ *image, e []byte) { e[64+56] = '1' }, formats.ErrCorrupt},
		"an L1 entry that points past the end":   {func(i *image, e []byte) { i.l1Table(e, 1<<40) }, formats.ErrCorrupt},
		"an L1 entry with reserved bits":         {func(i *image, e []byte) { i.l1Table(e, l2At|1) }, formats.ErrCorrupt},
		"an L1 table that aliases an L2 as data": {func(i *image, e []byte) { i.l1Table(e, dataAt) }, formats.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			img := newImage(t)
			img.snapshotTable("damaged", "whole")
			c.edit(img, img.b[img.snapshotsOff:])
			b := img.bytes()
			l, err := snapshotOf(t, b, "1")
			if err == nil {
				err = l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool { return true })
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if _, err := open(t, b); err != nil {
				t.Errorf("the active disk: %v", err)
			}
			if _, err := snapshotOf(t, b, "whole"); err != nil {
				t.Errorf("the other snapshot: %v", err)
			}
		})
	}
}

// l1Table gives a snapshot an L1 table of its own that begins with this entry.
func (img *image) l1Table(snapshot []byte, entry uint64) {
	img.b = append(img.b, make([]byte, -len(img.b)&(cluster-1))...)
	binary.BigEndian.PutUint64(img.b[img.snapshotsOff:], uint64(len(img.b)))
	at := len(img.b)
	img.b = append(img.b, make([]byte, cluster)...)
	img.set(at, entry)
}
