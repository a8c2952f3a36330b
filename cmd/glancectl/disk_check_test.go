package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/formats/check"
)

// checked is what disk check printed of a file, and on stderr.
type checked struct {
	OK, Complete   bool
	DataBytes      int64 `json:"data_bytes"`
	AllocatedBytes int64 `json:"allocated_bytes"`
	ReadBytes      int64 `json:"read_bytes"`
	CorruptBytes   int64 `json:"corrupt_bytes"`
	CorruptPlaces  int64 `json:"corrupt_places"`
	Corrupt        []check.Fault
	said           string
}

func checkDisk(t *testing.T, code int, args ...string) checked {
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
		k := checkDisk(t, exitDone, image)
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
		want    []check.Fault // Reason: a part of it
		unread  int64         // bytes of the 8 clusters that cannot be read
	}{
		"reserved bits in two entries": {nil, func(b []byte) {
			set(b, 2, entry(b, 2)|2)
			set(b, 5, entry(b, 5)|4)
		}, []check.Fault{{Offset: 2 * cluster, Length: cluster, Reason: "reserved bits"}, {Offset: 5 * cluster, Length: cluster, Reason: "reserved bits"}}, 2 * cluster},
		"neighbours are one place": {nil, func(b []byte) {
			set(b, 2, entry(b, 2)|2)
			set(b, 3, entry(b, 3)|2)
		}, []check.Fault{{Offset: 2 * cluster, Length: 2 * cluster, Reason: "reserved bits"}}, 2 * cluster},
		"past the end": {nil, func(b []byte) { set(b, 7, 1<<40) }, []check.Fault{{Offset: 7 * cluster, Length: cluster, Reason: "past the end"}}, cluster},
		"an L1 entry": {nil, func(b []byte) { b[binary.BigEndian.Uint64(b[40:])+7] |= 1 },
			[]check.Fault{{Offset: 0, Length: 64 << 20, Reason: "L1 entry 0"}}, 8 * cluster},
		"two clusters in one place": {nil, func(b []byte) { set(b, 6, entry(b, 1)) },
			[]check.Fault{{Offset: 6 * cluster, Length: cluster, Reason: "another part of the disk"}}, 0},
		"a compressed cluster that does not decode": {[]string{"-c"}, func(b []byte) {
			at := entry(b, 3) & (1<<54 - 1)
			copy(b[at:], bytes.Repeat([]byte{0xff}, 40))
		}, []check.Fault{{Offset: 3 * cluster, Length: cluster, Reason: "coded bytes"}}, cluster},
		"a zstd cluster that does not decode": {[]string{"-c", "-o", "compression_type=zstd"}, func(b []byte) {
			at := entry(b, 3) & (1<<54 - 1)
			copy(b[at:], bytes.Repeat([]byte{0xff}, 40))
		}, []check.Fault{{Offset: 3 * cluster, Length: cluster, Reason: "coded bytes"}}, cluster},
	} {
		t.Run(name, func(t *testing.T) {
			image := qcow2File(t, tt.options...)
			spoil(t, image, tt.change)
			k := checkDisk(t, exitFailed, image)
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

func TestCheckGivesUpInTheEnd(t *testing.T) {
	// L1 entries that all are wrong, of clusters of 512 bytes.
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image, "1G")
	spoil(t, image, func(b []byte) {
		l1 := b[binary.BigEndian.Uint64(b[40:]):]
		for i := range binary.BigEndian.Uint32(b[36:]) {
			l1[8*i+7] |= 1
		}
	})
	k := checkDisk(t, exitFailed, image)
	if k.Complete || k.OK || k.CorruptPlaces != 1 || k.CorruptBytes != 1<<16*512 || !strings.Contains(k.said, "given up") {
		t.Errorf("%+v", k)
	}
}
