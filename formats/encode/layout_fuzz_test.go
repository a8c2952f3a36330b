package encode_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"glanced/formats"
	"glanced/formats/encode"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

// fuzzLargest bounds how many bytes of an image a fuzzed disk makes: two L2
// tables, and some more.
const fuzzLargest = 24 << 20

// FuzzQCOW2Layout lays out a disk whose allocation is what the fuzzer says, pairs
// of a gap and a length in units of 512 bytes, and reads it back through the qcow2
// driver; and compares odd ranges with the whole.
func FuzzQCOW2Layout(f *testing.F) {
	f.Add(uint16(0), []byte{})
	f.Add(uint16(1), []byte{0, 0, 1, 0})
	f.Add(uint16(300), []byte{0, 0, 128, 0, 128, 0, 128, 0, 255, 255, 1, 0})
	f.Add(uint16(0), []byte{0, 0, 0, 160})                           // one run over several tables' worth of pages
	f.Add(uint16(7), bytes.Repeat([]byte{255, 255, 1, 0}, 60))       // many L2 tables, some empty
	f.Add(uint16(9), bytes.Repeat([]byte{200, 0, 1, 0}, 300))        // scattered
	f.Add(uint16(9), bytes.Repeat([]byte{128, 0, 255, 0, 1, 0}, 60)) // runs that end within clusters
	f.Fuzz(func(t *testing.T, tail uint16, pairs []byte) {
		if len(pairs) > 4096 {
			return
		}
		var runs [][2]int64
		at := int64(0)
		for ; len(pairs) >= 4; pairs = pairs[4:] {
			// The high bits of a gap make it larger than a table spans.
			gap := int64(binary.LittleEndian.Uint16(pairs))
			gap = gap & 0xfff << (gap >> 12) * 512
			n := int64(binary.LittleEndian.Uint16(pairs[2:])) * 512
			if n > 0 {
				runs = append(runs, [2]int64{at + gap, n})
			}
			at += gap + n
		}
		d := &patternDisk{size: at + int64(tail), failAt: -1, stored: func(yield func(off, n int64) bool) {
			for _, r := range runs {
				if !yield(r[0], r[1]) {
					return
				}
			}
		}}
		img, err := encode.QCOW2(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() > fuzzLargest {
			return
		}
		whole := make([]byte, img.Size())
		if err := img.ReadAt(t.Context(), whole, 0); err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(uint64(tail), 1))
		for range 20 {
			off := rnd.Int64N(img.Size())
			b := make([]byte, min(1+rnd.Int64N(int64(1)<<rnd.IntN(18)), img.Size()-off))
			if err := img.ReadAt(t.Context(), b, off); err != nil || !bytes.Equal(b, whole[off:off+int64(len(b))]) {
				t.Fatalf("%d bytes at %d are not those of the whole (%v)", len(b), off, err)
			}
		}

		read := open(t, qcow2.Driver(), formattest.Memory(whole))
		if read.Size() != (d.size+511)/512*512 {
			t.Fatalf("%d bytes, of a disk of %d", read.Size(), d.size)
		}
		// Each run, with what is around it as far as the neighbours.
		next := int64(0)
		for i, r := range runs {
			end := d.size
			if i+1 < len(runs) {
				end = runs[i+1][0]
			}
			from, to := max(next, r[0]-70_000), min(end, r[0]+r[1]+70_000)
			got, want := make([]byte, to-from), make([]byte, to-from)
			if err := d.ReadAt(t.Context(), want, from); err != nil {
				t.Fatal(err)
			}
			if err := read.ReadAt(t.Context(), got, from); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("guest range %d to %d differs (%v)", from, to, err)
			}
			next = r[0] + r[1]
		}
		// No cluster is stored that has nothing in it.
		i := 0
		err = read.Extents(t.Context(), 0, read.Size(), func(x formats.Extent) bool {
			for off := x.Off; x.Kind == formats.Data && off < x.End(); off += 64 << 10 {
				for i < len(runs) && runs[i][0]+runs[i][1] <= off {
					i++
				}
				if i == len(runs) || runs[i][0] >= off+64<<10 {
					t.Errorf("the cluster at %d is stored", off)
					return false
				}
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
