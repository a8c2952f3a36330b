package vmdk_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vmdk"
)

// What a descriptor file says must be plain and agree with what it is given.
func TestRefusesHostileSplitDisks(t *testing.T) {
	flat := func(lines ...string) []byte { return splitText("twoGbMaxExtentFlat", lines...) }
	sparse := func(lines ...string) []byte { return splitText("twoGbMaxExtentSparse", lines...) }
	line := `RW 128 SPARSE "piece"`
	piece := pieceOf(guestOf(64<<10), builder{version: 1, grainSize: 8}, false)
	whole, _ := smallSparse()
	stream, _ := smallStream()
	changed := func(change func(f []byte)) []byte {
		f := bytes.Clone(piece)
		change(f)
		return f
	}
	for _, c := range []struct {
		name  string
		text  []byte
		piece []byte // the file "piece"; "flat" has 10 sectors
		want  error
	}{
		{"a path", flat(`RW 10 FLAT "../flat" 0`), nil, formats.ErrReference},
		{"a windows path", flat(`RW 10 FLAT "..\flat" 0`), nil, formats.ErrReference},
		{"an address", flat(`RW 10 FLAT "nbd:flat" 0`), nil, formats.ErrReference},
		{"a path after a plain name", flat(`RW 10 FLAT "flat" 0`, `RW 10 FLAT "/dev/sda" 0`), nil, formats.ErrReference},
		{"the folder", flat(`RW 10 FLAT "." 0`), nil, formats.ErrCorrupt},
		{"the folder above", flat(`RW 10 FLAT ".." 0`), nil, formats.ErrCorrupt},
		{"no name", flat(`RW 10 FLAT "" 0`), nil, formats.ErrCorrupt},
		{"a name over 4 KiB", flat(`RW 10 FLAT "` + strings.Repeat("n", 4097) + `" 0`), nil, formats.ErrCorrupt},

		{"a raw device", splitText("fullDevice", `RW 10 FLAT "flat" 0`), nil, formats.ErrUnsupported},
		{"a partitioned device", splitText("partitionedDevice", `RW 10 FLAT "flat" 0`), nil, formats.ErrUnsupported},
		{"custom", splitText("custom", `RW 10 FLAT "flat" 0`), nil, formats.ErrUnsupported},
		{"vmfs sparse", splitText("vmfsSparse", `RW 10 VMFSSPARSE "piece"`), piece, formats.ErrUnsupported},
		{"vmfs thin", splitText("vmfsThin", `RW 10 VMFS "flat"`), nil, formats.ErrUnsupported},
		{"vmfs raw", splitText("vmfsRaw", `RW 10 VMFSRAW "flat"`), nil, formats.ErrUnsupported},
		{"vmfs raw device mapping", splitText("vmfsRawDeviceMap", `RW 10 VMFSRDM "flat"`), nil, formats.ErrUnsupported},
		{"seSparse", splitText("seSparse", `RW 10 SESPARSE "piece"`), piece, formats.ErrUnsupported},
		{"monolithicSparse in another file", splitText("monolithicSparse", line), piece, formats.ErrUnsupported},
		{"no createType", splitText("", line), piece, formats.ErrUnsupported},

		{"a path in vmfs", splitText("vmfs", `RW 10 VMFS "/vmfs/volumes/datastore1/vm/flat"`), nil, formats.ErrReference},
		{"a path upwards in vmfs", splitText("vmfs", `RW 10 VMFS "../flat"`), nil, formats.ErrReference},
		{"a datastore in vmfs", splitText("vmfs", `RW 10 VMFS "[datastore1] vm/flat"`), nil, formats.ErrReference},
		{"vmfs in two files", splitText("vmfs", `RW 5 VMFS "flat"`, `RW 5 VMFS "flat"`), nil, formats.ErrCorrupt},
		{"vmfs of nothing", splitText("vmfs", `RW 10 ZERO`), nil, formats.ErrCorrupt},
		{"a vmfs extent with an offset", splitText("vmfs", `RW 10 VMFS "flat" 0`), nil, formats.ErrCorrupt},
		{"a sparse extent in vmfs", splitText("vmfs", `RW 128 VMFSSPARSE "piece"`), piece, formats.ErrCorrupt},
		{"a hosted extent in vmfs", splitText("vmfs", line), piece, formats.ErrCorrupt},
		{"a flat extent in vmfs", splitText("vmfs", `RW 10 FLAT "flat" 0`), nil, formats.ErrCorrupt},
		{"a mapped device in vmfs", splitText("vmfs", `RW 10 VMFSRDM "flat"`), nil, formats.ErrCorrupt},
		{"a vmfs delta", bytes.Replace(splitText("vmfs", `RW 10 VMFS "flat"`), []byte("ffffffff"), []byte("1"), 1), nil, formats.ErrCorrupt},
		{"a vmfs file that is too short", splitText("vmfs", `RW 11 VMFS "flat"`), nil, formats.ErrCorrupt},
		{"a vmfs file that is too long", splitText("vmfs", `RW 9 VMFS "flat"`), nil, formats.ErrCorrupt},

		{"a flat extent among sparse ones", sparse(line, `RW 10 FLAT "flat" 0`), piece, formats.ErrCorrupt},
		{"a sparse extent among flat ones", flat(`RW 10 FLAT "flat" 0`, line), piece, formats.ErrCorrupt},
		{"a vmfs extent among flat ones", flat(`RW 10 VMFS "flat" 0`), nil, formats.ErrCorrupt},
		{"monolithicFlat in two files", splitText("monolithicFlat", `RW 10 FLAT "flat" 0`, `RW 10 FLAT "flat" 0`), nil, formats.ErrCorrupt},
		{"monolithicFlat of nothing", splitText("monolithicFlat", `RW 10 ZERO`), nil, formats.ErrCorrupt},
		{"no extent", flat(), nil, formats.ErrCorrupt},
		{"an empty extent", flat(`RW 0 FLAT "flat" 0`), nil, formats.ErrCorrupt},
		{"no access", flat(`NOACCESS 10 FLAT "flat" 0`), nil, formats.ErrUnsupported},
		{"a hole with a name", flat(`RW 10 ZERO "flat"`), nil, formats.ErrCorrupt},
		{"a flat delta", bytes.Replace(flat(`RW 10 FLAT "flat" 0`), []byte("ffffffff"), []byte("1"), 1), nil, formats.ErrCorrupt},
		{"no offset", flat(`RW 10 FLAT "flat"`), nil, formats.ErrCorrupt},
		{"a negative offset", flat(`RW 10 FLAT "flat" -1`), nil, formats.ErrCorrupt},
		{"an offset that overflows", flat(`RW 10 FLAT "flat" 9223372036854775807`), nil, formats.ErrCorrupt},
		{"an offset and more", flat(`RW 10 FLAT "flat" 0 7`), nil, formats.ErrCorrupt},
		{"a sparse extent twice", sparse(line, line), piece, formats.ErrCorrupt},
		{"a sparse extent with an offset", sparse(line + " 0"), piece, formats.ErrCorrupt},

		{"a flat file that is too short", flat(`RW 11 FLAT "flat" 0`), nil, formats.ErrCorrupt},
		{"a flat file that is too long", flat(`RW 9 FLAT "flat" 0`), nil, formats.ErrCorrupt},
		{"a flat file that ends before the offset", flat(`RW 1 FLAT "flat" 10`), nil, formats.ErrCorrupt},
		{"a piece of another capacity", sparse(`RW 127 SPARSE "piece"`), piece, formats.ErrCorrupt},
		{"a piece that is smaller", sparse(`RW 129 SPARSE "piece"`), piece, formats.ErrCorrupt},
		{"a piece with a descriptor", sparse(line), whole, formats.ErrCorrupt},
		{"a compressed piece", sparse(line), stream, formats.ErrUnsupported},
		{"a piece that is empty", sparse(line), []byte{}, formats.ErrCorrupt},
		{"a piece that is no sparse extent", sparse(line), make([]byte, 64<<10), formats.ErrCorrupt},
		{"a piece cut off in its header", sparse(line), piece[:100], formats.ErrCorrupt},
		{"a piece cut off in its tables", sparse(line), piece[:22*sector], formats.ErrCorrupt},
		{"a COWD piece", sparse(line), append([]byte("COWD"), make([]byte, 2048)...), formats.ErrUnsupported},
		{"a piece of version 4", sparse(line), changed(func(f []byte) { f[4] = 4 }), formats.ErrUnsupported},
		{"a piece with grains of 1 sector", sparse(line), changed(func(f []byte) { f[20] = 1 }), formats.ErrCorrupt},
		{"a piece whose directory is in a footer", sparse(line), changed(func(f []byte) { le.PutUint64(f[56:], 1<<64-1) }), formats.ErrCorrupt},
		{"a piece whose descriptor passes its end", sparse(line), changed(func(f []byte) { le.PutUint64(f[28:], 1<<40); f[36] = 1 }), formats.ErrCorrupt},
		{"a piece whose descriptor overflows", sparse(line), changed(func(f []byte) { le.PutUint64(f[28:], 1<<64-1); f[36] = 1 }), formats.ErrCorrupt},
		{"a piece with a table past its end", sparse(line), changed(func(f []byte) { le.PutUint32(f[21*sector:], 1<<31) }), formats.ErrCorrupt},
		{"a piece with a grain past its end", sparse(line), changed(func(f []byte) { le.PutUint32(f[22*sector:], 1<<31) }), formats.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &files{content: map[string][]byte{"flat": make([]byte, 10*sector), "piece": c.piece}}
			err := openAndMap(t, c.text, f)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := f.closed(t); n != len(f.given) {
				t.Errorf("%d of %d sources are closed", n, len(f.given))
			}
			info, inspected := vmdk.Driver().Inspect(t.Context(), formattest.Memory(c.text))
			if inspected == nil && info.Refused == nil {
				t.Error("Inspect says that it is safe to serve")
			}
		})
	}
}

// openAndMap opens a descriptor file through an engine and maps all of the disk,
// which is closed again.
func openAndMap(t *testing.T, text []byte, f *files) error {
	t.Helper()
	e := engine.New(engine.Options{TableBytes: 1 << 20, Workers: 1})
	defer e.Close()
	d, err := e.Open(t.Context(), vmdk.Driver(), formattest.Memory(text), f.open())
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Extents(t.Context(), 0, d.Size(), func(formats.Extent) bool { return true })
}
