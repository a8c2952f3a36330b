package formattest

import (
	"context"
	"fmt"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
)

// largestDecoded bounds what one compressed cluster may decode to, in bytes: a
// reader allocates it.
const largestDecoded = 64 << 20

// wholeMap maps the whole disk and checks every extent.
func wholeMap(t *testing.T, l formats.Layout, srcs ...stored.Bytes) []formats.Extent {
	t.Helper()
	all, err := mapRange(t.Context(), l, srcs, 0, l.Size())
	if err != nil {
		t.Fatalf("Map of the whole disk: %v", err)
	}
	return all
}

// mapRange is the extents of a range, each checked, and together covering it.
func mapRange(ctx context.Context, l formats.Layout, srcs []stored.Bytes, off, n int64) ([]formats.Extent, error) {
	var all []formats.Extent
	var bad error
	at, end := off, off+n
	err := l.Map(ctx, off, n, func(x formats.Extent) bool {
		if bad = checkExtent(x, at, end, srcs); bad != nil {
			return false
		}
		at = x.End()
		all = append(all, x)
		return true
	})
	if bad != nil {
		return nil, bad
	}
	if err == nil && at != end {
		return nil, fmt.Errorf("Map(%d, %d) ends at %d without an error", off, n, at)
	}
	return all, err
}

// checkExtent says what is wrong with an extent that should begin at off, within
// a request that ends at end.
func checkExtent(x formats.Extent, off, end int64, srcs []stored.Bytes) error {
	wrong := func(what string) error { return fmt.Errorf("extent %+v: %s", x, what) }
	if x.Off != off {
		return wrong(fmt.Sprintf("begins at %d, expected %d", x.Off, off))
	}
	if x.Len <= 0 || x.Len > end-x.Off {
		return wrong(fmt.Sprintf("its length is not within the request, which ends at %d", end))
	}
	if x.Depth != 0 {
		return wrong("Depth is the engine's to set")
	}
	switch x.Kind {
	case formats.Absent, formats.Zero:
		return nil
	case formats.Data:
		if x.N != x.Len || x.Codec != formats.NoCodec {
			return wrong("data must have N == Len and no codec")
		}
	case formats.Compressed:
		if x.Codec == formats.NoCodec || x.N <= 0 {
			return wrong("compressed without a codec or without bytes")
		}
		if x.Skip < 0 || x.Full <= 0 || x.Skip > x.Full-x.Len {
			return wrong("does not lie within the decoded cluster")
		}
		if x.Full > largestDecoded {
			return wrong(fmt.Sprintf("decodes to more than %d bytes", largestDecoded))
		}
	default:
		return wrong("unknown kind")
	}
	if x.Src < 0 || x.Src >= len(srcs) {
		return wrong(fmt.Sprintf("there are %d sources", len(srcs)))
	}
	if size := srcs[x.Src].Size(); x.Pos < 0 || x.Pos > size-x.N {
		return wrong(fmt.Sprintf("its bytes are not within the source (%d bytes)", size))
	}
	return nil
}

// clip is what of all lies in [off, off+n).
func clip(all []formats.Extent, off, n int64) []formats.Extent {
	var part []formats.Extent
	for _, x := range all {
		from, to := max(x.Off, off), min(x.End(), off+n)
		if from >= to {
			continue
		}
		switch x.Kind {
		case formats.Data:
			x.Pos += from - x.Off
			x.N = to - from
		case formats.Compressed:
			x.Skip += from - x.Off
		}
		x.Off, x.Len = from, to-from
		part = append(part, x)
	}
	return part
}

// merge joins neighbours that continue each other, so that two maps can be
// compared whatever their cuts.
func merge(all []formats.Extent) []formats.Extent {
	var out []formats.Extent
	for _, x := range all {
		if !x.Kind.Stored() {
			x = formats.Extent{Off: x.Off, Len: x.Len, Kind: x.Kind}
		}
		if len(out) > 0 {
			last := &out[len(out)-1]
			next := *last // what would continue last
			next.Off, next.Len = last.End(), x.Len
			switch x.Kind {
			case formats.Data:
				next.Pos, next.N = last.Pos+last.N, x.N
			case formats.Compressed:
				next.Skip += last.Len
			}
			if next == x {
				last.Len += x.Len
				if x.Kind == formats.Data {
					last.N += x.N
				}
				continue
			}
		}
		out = append(out, x)
	}
	return out
}
