package encode_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"glanced/formats"
	"glanced/formats/encode"
	"glanced/formats/formattest"
)

func TestRawIsTheDisk(t *testing.T) {
	d := every(3<<20+5, 1<<20, 1000)
	img := encode.Raw(d)
	got, want := make([]byte, d.size), make([]byte, d.size)
	if err := d.ReadAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	if err := img.ReadAt(t.Context(), got, 0); err != nil || img.Size() != d.size || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want the %d of the disk", img.Size(), err, d.size)
	}
	d.failAt = 2000
	if err := img.ReadAt(t.Context(), got, 0); !errors.Is(err, formattest.ErrInjected) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// Neighbours that are alike are one run, whatever the map calls them.
func TestRawTellsHoles(t *testing.T) {
	type run struct {
		off, n int64
		hole   bool
	}
	holes := encode.Raw(mapOf{
		{Off: 0, Len: 100, Kind: formats.Absent},
		{Off: 100, Len: 50, Kind: formats.Zero},
		{Off: 150, Len: 10, Kind: formats.Data},
		{Off: 160, Len: 40, Kind: formats.Compressed},
		{Off: 200, Len: 1, Kind: formats.Zero},
	}).(formats.Extenter)
	var got []run
	take := func(off, n int64, hole bool) bool {
		got = append(got, run{off, n, hole})
		return len(got) < 3
	}
	if err := holes.Extents(t.Context(), 0, 201, take); err != nil {
		t.Fatal(err)
	}
	if want := []run{{0, 150, true}, {150, 50, false}, {200, 1, true}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got = append(got[:0], run{}, run{})
	if err := holes.Extents(t.Context(), 0, 201, take); err != nil || len(got) != 3 {
		t.Errorf("%d runs after the one that was to be the last (%v)", len(got)-3, err)
	}
}

// mapOf is a disk that has a map and nothing else.
type mapOf []formats.Extent

func (m mapOf) Size() int64                                 { return m[len(m)-1].End() }
func (m mapOf) ReadAt(context.Context, []byte, int64) error { return formattest.ErrInjected }
func (m mapOf) Extents(_ context.Context, _, _ int64, yield func(formats.Extent) bool) error {
	for _, x := range m {
		if !yield(x) {
			break
		}
	}
	return nil
}
