package check

import (
	"errors"
	"strings"
	"testing"

	"glanced/formats"
)

func TestTheListOfFaultsIsBounded(t *testing.T) {
	var f Faults
	for i := range int64(1000) {
		f.add(i*10, 5, errors.New(strings.Repeat("é", 999)))
	}
	more := Faults{}
	more.add(7, 1, errors.New("x"))
	f.merge(more)
	if f.Count != 1001 || f.Bytes != 5001 || len(f.List) != maxFaults || len(f.List[0].Reason) > maxReason+5 {
		t.Errorf("%d places, %d bytes, %d kept, reasons of %d", f.Count, f.Bytes, len(f.List), len(f.List[0].Reason))
	}
}

// marked is what window.mark and test say of extents on a file, in windows of
// most blocks.
func marked(extents []formats.Extent, block, most int64) (found Faults) {
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
			if found.Bytes != n {
				t.Errorf("%s, windows of %d: %d bytes are found, want %d: %+v", name, most, found.Bytes, n, found.List)
			}
			if most == 4096 {
				for i, w := range tt.want {
					if found.List[i].Offset != w[0] || found.List[i].Length != w[1] {
						t.Errorf("%s: place %d is %+v, want %v", name, i, found.List[i], w)
					}
				}
			}
		}
	}
}
