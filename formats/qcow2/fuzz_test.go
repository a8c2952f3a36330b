package qcow2_test

import (
	"errors"
	"testing"

	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/qcow2"
)

// seeds are hand-made images, valid and hostile ones.
func seeds(f *testing.F) [][]byte {
	var all [][]byte
	add := func(b []byte) {
		if len(b) <= 64<<10 {
			all = append(all, b)
		}
	}
	add(newImage(f).bytes())
	for _, h := range hostileEdits {
		img := newImage(f)
		h.edit(img)
		add(img.bytes())
	}
	img, _ := extended(f)
	add(img.bytes())
	img = newImage(f)
	img.snapshotTable("one", "", "two")
	img.bitmaps("changes", "more changes")
	add(img.bytes())
	img.l1Table(img.b[img.snapshotsOff:], l2At)
	add(img.bytes())
	for _, b := range append(hostile.Seeds("qcow2"), formattest.QemuSeeds(f, "qcow2", 64<<10,
		"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=16k,extended_l2=on", "cluster_size=4k,compression_type=zstd")...) {
		add(b)
	}
	return all
}

func FuzzOpen(f *testing.F) { formattest.FuzzOpen(f, qcow2.Driver(), seeds(f)...) }

// FuzzOpenSnapshot opens the snapshots that arbitrary bytes claim to have, walks
// their maps and reads a little of each, through an engine, which checks every
// extent.
func FuzzOpenSnapshot(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	verdicts := []error{formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrReference, formats.ErrEncrypted, formats.ErrLimit, formats.ErrSnapshot}
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(err error) {
			for _, v := range verdicts {
				if err == nil || errors.Is(err, v) {
					return
				}
			}
			t.Fatalf("%v: none of the contract's errors", err)
		}
		info, err := qcow2.Driver().Inspect(t.Context(), formattest.Memory(b))
		if err != nil {
			return // FuzzOpen's
		}
		e := engine.New(engine.Options{TableBytes: 1 << 20, Workers: 1})
		defer e.Close()
		for _, s := range info.Snapshots[:min(len(info.Snapshots), 4)] {
			for _, asked := range []string{s.ID, s.Name} {
				src := formattest.Memory(b)
				d, err := e.Open(t.Context(), qcow2.Driver(), src, engine.OpenOptions{Snapshot: asked})
				if err != nil {
					check(err)
					continue
				}
				n := 0
				check(d.Extents(t.Context(), 0, d.Size(), func(formats.Extent) bool { n++; return n < 1<<14 }))
				p := make([]byte, min(64<<10, d.Size()))
				check(d.ReadAt(t.Context(), p, 0))
				check(d.ReadAt(t.Context(), p, d.Size()-int64(len(p))))
				if read, most := src.BytesRead(), 8<<20+8*int64(len(b)); read > most {
					t.Fatalf("%d bytes were read of an image of %d", read, len(b))
				}
				d.Close()
			}
		}
	})
}
