package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/formats"
)

// checked is what disk check printed of a file, and on stderr.
type checked struct {
	OK, Complete   bool
	DataBytes      int64 `json:"data_bytes"`
	AllocatedBytes int64 `json:"allocated_bytes"`
	ReadBytes      int64 `json:"read_bytes"`
	CorruptBytes   int64 `json:"corrupt_bytes"`
	CorruptPlaces  int64 `json:"corrupt_places"`
	Corrupt        []fault
	said           string
}

func check(t *testing.T, code int, args ...string) checked {
	t.Helper()
	r := glancectl(t, "", append([]string{"disk", "check", "-f", "json"}, args...)...)
	if r.code != code {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, r.code, code, r.out, r.err)
	}
	k := decode[checked](t, r.out)
	k.said = r.err
	if k.OK != (code == exitDone) {
		t.Errorf("%q: exit code %d, and ok is %v", args, code, k.OK)
	}
	return k
}

func TestCheckReadsAllOfASoundImage(t *testing.T) {
	eachVariant(t, func(t *testing.T, format, image, guest string) {
		k := check(t, exitDone, image)
		if k.ReadBytes == 0 || k.ReadBytes != k.AllocatedBytes || !k.Complete || k.CorruptPlaces != 0 || k.CorruptBytes != 0 || len(k.Corrupt) != 0 {
			t.Errorf("%+v", k)
		}
	})
}

// qcow2File is an image of 64 KiB clusters to be spoiled: 64 MiB, 8 of them
// written, compressed or not.
func qcow2File(t *testing.T, options ...string) string {
	t.Helper()
	guest := filepath.Join(t.TempDir(), "guest")
	words := bytes.Repeat([]byte("some text that can be compressed, "), 8<<16/34)
	if err := os.WriteFile(guest, words, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(guest, 64<<20); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), guest, image)...)
	return image
}

// spoil changes a file by what change does to its content.
func spoil(t *testing.T, path string, change func(b []byte)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// l2Of is the first L2 table of a qcow2 image in b, as a slice of it.
func l2Of(b []byte) []byte {
	l1 := binary.BigEndian.Uint64(b[40:])
	return b[binary.BigEndian.Uint64(b[l1:])&0x00fffffffffffe00:]
}

func TestCheckFindsEachBadPlaceAndGoesOn(t *testing.T) {
	const cluster = 64 << 10
	entry := func(b []byte, i int) uint64 { return binary.BigEndian.Uint64(l2Of(b)[8*i:]) }
	set := func(b []byte, i int, v uint64) { binary.BigEndian.PutUint64(l2Of(b)[8*i:], v) }
	for name, tt := range map[string]struct {
		options []string
		change  func(b []byte)
		want    []fault // Reason: a part of it
		unread  int64   // bytes of the 8 clusters that cannot be read
	}{
		"reserved bits in two entries": {nil, func(b []byte) {
			set(b, 2, entry(b, 2)|2)
			set(b, 5, entry(b, 5)|4)
		}, []fault{{2 * cluster, cluster, "reserved bits"}, {5 * cluster, cluster, "reserved bits"}}, 2 * cluster},
		"neighbours are one place": {nil, func(b []byte) {
			set(b, 2, entry(b, 2)|2)
			set(b, 3, entry(b, 3)|2)
		}, []fault{{2 * cluster, 2 * cluster, "reserved bits"}}, 2 * cluster},
		"past the end": {nil, func(b []byte) { set(b, 7, 1<<40) }, []fault{{7 * cluster, cluster, "past the end"}}, cluster},
		"an L1 entry": {nil, func(b []byte) { b[binary.BigEndian.Uint64(b[40:])+7] |= 1 },
			[]fault{{0, 64 << 20, "L1 entry 0"}}, 8 * cluster},
		"two clusters in one place": {nil, func(b []byte) { set(b, 6, entry(b, 1)) },
			[]fault{{6 * cluster, cluster, "another part of the disk"}}, 0},
		"a compressed cluster that does not decode": {[]string{"-c"}, func(b []byte) {
			at := entry(b, 3) & (1<<54 - 1)
			copy(b[at:], bytes.Repeat([]byte{0xff}, 40))
		}, []fault{{3 * cluster, cluster, "coded bytes"}}, cluster},
		"a zstd cluster that does not decode": {[]string{"-c", "-o", "compression_type=zstd"}, func(b []byte) {
			at := entry(b, 3) & (1<<54 - 1)
			copy(b[at:], bytes.Repeat([]byte{0xff}, 40))
		}, []fault{{3 * cluster, cluster, "coded bytes"}}, cluster},
	} {
		t.Run(name, func(t *testing.T) {
			image := qcow2File(t, tt.options...)
			spoil(t, image, tt.change)
			k := check(t, exitFailed, image)
			if !k.Complete || int(k.CorruptPlaces) != len(tt.want) || len(k.Corrupt) != len(tt.want) {
				t.Fatalf("%+v", k)
			}
			var bad int64
			for i, want := range tt.want {
				got := k.Corrupt[i]
				bad += want.Length
				if got.Offset != want.Offset || got.Length != want.Length {
					t.Errorf("place %d is %+v, want %+v", i, got, want)
				}
				if !strings.Contains(got.Reason, want.Reason) {
					t.Errorf("place %d: %q does not say %q", i, got.Reason, want.Reason)
				}
			}
			if k.CorruptBytes != bad || k.ReadBytes != 8*cluster-tt.unread {
				t.Errorf("%d bytes are bad, want %d; %d are read", k.CorruptBytes, bad, k.ReadBytes)
			}
			if !strings.Contains(k.said, "corrupt") {
				t.Errorf("said %q", k.said)
			}
		})
	}
}

func TestCheckKeepsABoundedListAndGivesUpInTheEnd(t *testing.T) {
	var f faults
	for i := range int64(1000) {
		f.add(i*10, 5, errors.New(strings.Repeat("é", 999)))
	}
	more := faults{}
	more.add(7, 1, errors.New("x"))
	f.merge(more)
	if f.count != 1001 || f.bytes != 5001 || len(f.list) != maxFaults || len(f.list[0].Reason) > maxReason+5 {
		t.Errorf("%d places, %d bytes, %d kept, reasons of %d", f.count, f.bytes, len(f.list), len(f.list[0].Reason))
	}

	// L1 entries that all are wrong, of clusters of 512 bytes.
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image, "1G")
	spoil(t, image, func(b []byte) {
		l1 := b[binary.BigEndian.Uint64(b[40:]):]
		for i := range binary.BigEndian.Uint32(b[36:]) {
			l1[8*i+7] |= 1
		}
	})
	k := check(t, exitFailed, image)
	if k.Complete || k.OK || k.CorruptPlaces != 1 || k.CorruptBytes != maxBad*512 || !strings.Contains(k.said, "given up") {
		t.Errorf("%+v", k)
	}
}

// marked is what window.mark and test say of extents on a file, in windows of
// most blocks.
func marked(extents []formats.Extent, block, most int64) (found faults) {
	f := fileOfChain{end: 1 << 30}
	const total = 1 << 12
	for from := int64(0); from < total; from += most {
		w := window{marks: make([]uint64, most/64), from: from, to: min(from+most, total), block: block}
		for i := range extents {
			if extents[i].Kind == formats.Data {
				w.mark(0, &extents[i], &found)
			}
		}
		for i := range extents {
			if extents[i].Kind == formats.Compressed {
				w.test(&f, &extents[i], &found)
			}
		}
	}
	return found
}

func TestOverlapsAreFoundToTheBlockInAnyWindow(t *testing.T) {
	data := func(off, pos, n int64) formats.Extent {
		return formats.Extent{Off: off, Len: n, Kind: formats.Data, Pos: pos, N: n}
	}
	const b = 512
	for name, tt := range map[string]struct {
		extents []formats.Extent
		want    [][2]int64 // guest offset, length
	}{
		"side by side":       {[]formats.Extent{data(0, 0, 100*b), data(100*b, 100*b, 900*b)}, nil},
		"a short last one":   {[]formats.Extent{data(0, 0, 100*b), data(100*b, 200*b, 10), data(200*b, 201*b, b)}, nil},
		"the same":           {[]formats.Extent{data(0, 300*b, 100*b), data(5000*b, 300*b, 100*b)}, [][2]int64{{5000 * b, 100 * b}}},
		"the end of one":     {[]formats.Extent{data(0, 0, 100*b), data(1000*b, 90*b, 20*b)}, [][2]int64{{1000 * b, 10 * b}}},
		"in the middle":      {[]formats.Extent{data(0, 70*b, 3*b), data(1000*b, 0, 1000*b)}, [][2]int64{{1070 * b, 3 * b}}},
		"two in the middle":  {[]formats.Extent{data(0, 70*b, 3*b), data(3*b, 200*b, b), data(1000*b, 0, 1000*b)}, [][2]int64{{1070 * b, 3 * b}, {1200 * b, b}}},
		"unaligned":          {[]formats.Extent{data(0, 10, 3*b), data(9*b, 3*b+10, 3*b)}, nil},
		"unaligned, on each": {[]formats.Extent{data(0, 10, 3*b), data(9*b, 10, 3*b)}, [][2]int64{{9*b + b - 10, 2 * b}}},
		"compressed beside":  {[]formats.Extent{data(0, 0, b), {Off: 9 * b, Len: b, Kind: formats.Compressed, Pos: b, N: 9}}, nil},
		"compressed within":  {[]formats.Extent{data(0, 0, b), {Off: 9 * b, Len: b, Kind: formats.Compressed, Pos: b - 1, N: 9}}, [][2]int64{{9 * b, b}}},
	} {
		for _, most := range []int64{64, 128, 4096} {
			found := marked(tt.extents, b, most)
			var n int64
			for _, w := range tt.want {
				n += w[1]
			}
			if found.bytes != n {
				t.Errorf("%s, windows of %d: %d bytes are found, want %d: %+v", name, most, found.bytes, n, found.list)
			}
			if most == 4096 {
				for i, w := range tt.want {
					if found.list[i].Offset != w[0] || found.list[i].Length != w[1] {
						t.Errorf("%s: place %d is %+v, want %v", name, i, found.list[i], w)
					}
				}
			}
		}
	}
}
