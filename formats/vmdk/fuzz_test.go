package vmdk_test

import (
	"context"
	"errors"
	"runtime/metrics"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/vmdk"
)

func FuzzOpen(f *testing.F) {
	small := builder{grainSize: 8, tableLen: 4}
	front := builder{grainSize: 8, frontGD: true, zeroGrains: true}
	plain := builder{grainSize: 8, tableLen: 2}
	guest := guestOf(64 * sector)
	split, _, _ := splitDisk()
	flat, _, _ := flatDisk()
	seeds := [][]byte{small.stream(guest), front.stream(guest), plain.sparse(guest),
		[]byte(flatText), edited("parentCID=ffffffff", "parentCID=1"), split, flat, splitText("vmfs", `RW 2 VMFS "x-flat.vmdk"`)}
	seeds = append(seeds, hostile.Seeds("vmdk")...)
	seeds = append(seeds, formattest.QemuSeeds(f, "vmdk", 64<<10,
		"subformat=monolithicSparse", "subformat=monolithicFlat", "subformat=streamOptimized", "subformat=twoGbMaxExtentSparse")...)
	formattest.FuzzOpen(f, vmdk.Driver(), seeds...)
}

// FuzzOpenSplit opens an arbitrary descriptor whose extents are two arbitrary
// files, in turns, walks the map and reads a little through an engine, which
// checks every extent. Nothing given may stay open, and memory is bounded.
func FuzzOpenSplit(f *testing.F) {
	text, sparse, _ := splitDisk()
	f.Add(text, sparse.content["d-s001.vmdk"], sparse.content["d-s002.vmdk"])
	f.Add(splitText("twoGbMaxExtentSparse", `RW 100 SPARSE "x"`, `RW 1 ZERO`, `RW 1 SPARSE "y"`), sparse.content["d-s001.vmdk"], sparse.content["d-s002.vmdk"])
	f.Add(splitText("twoGbMaxExtentFlat", `RW 10 FLAT "x" 0`, `RW 7 ZERO`, `RW 5 FLAT "y" 3`), make([]byte, 10*sector), make([]byte, 8*sector))
	f.Add(splitText("monolithicFlat", `RW 1 FLAT "x" 0`), make([]byte, sector), []byte{})
	f.Add(splitText("vmfs", `RW 2 VMFS "x-flat.vmdk"`), make([]byte, 2*sector), []byte{})
	verdicts := []error{formats.ErrFormat, formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrReference, formats.ErrLimit}
	f.Fuzz(func(t *testing.T, text, a, b []byte) {
		var given []*formattest.Mem
		resolve := func(_ context.Context, ref formats.Ref) (stored.Bytes, error) {
			if ref.Kind != formats.RefExtent {
				return nil, formats.ErrReference
			}
			src := formattest.Memory([][]byte{a, b}[len(given)%2])
			given = append(given, src)
			return src, nil
		}
		check := func(err error) {
			for _, v := range verdicts {
				if err == nil || errors.Is(err, v) {
					return
				}
			}
			t.Fatalf("%v: none of the contract's errors", err)
		}
		before := allocated()
		e := engine.New(engine.Options{TableBytes: 1 << 20, Workers: 1})
		defer e.Close()
		d, err := e.Open(t.Context(), vmdk.Driver(), formattest.Memory(text), engine.OpenOptions{Files: resolve})
		if check(err); err == nil {
			n := 0
			check(d.Extents(t.Context(), 0, d.Size(), func(formats.Extent) bool { n++; return n < 1<<14 }))
			p := make([]byte, min(64<<10, d.Size()))
			for _, off := range []int64{0, d.Size() / 2, d.Size()} {
				check(d.ReadAt(t.Context(), p, min(off, d.Size()-int64(len(p)))))
			}
			d.Close()
		}
		for i, src := range given {
			if err := src.ReadAt(t.Context(), nil, 0); !errors.Is(err, formats.ErrClosed) {
				t.Fatalf("extent %d of %d was left open (Open: %v)", i, len(given), err)
			}
		}
		if spent, most := allocated()-before, uint64(96<<20+8*len(text)+8*len(a)+8*len(b)); spent > most {
			t.Fatalf("%d bytes were allocated, more than %d", spent, most)
		}
	})
}

// allocated is how many bytes the program has allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
