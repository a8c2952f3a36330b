package hostile

import (
	"bytes"
	"math"

	"glanced/formats"
)

// qed is a header of QEMU's older format, which is refused whatever it holds.
func qed() []byte {
	b := make([]byte, 64<<10)
	copy(b, "QED\x00")
	le.PutUint32(b[4:], 64<<10)
	le.PutUint32(b[8:], 4)
	le.PutUint32(b[12:], 1)
	le.PutUint64(b[48:], 1<<20)
	return b
}

// iso is a disc whose volume descriptor is primary.
func iso() []byte {
	b := make([]byte, 36<<10)
	copy(b[32<<10:], "\x01CD001\x01")
	copy(b[34<<10:], "\xffCD001\x01")
	return b
}

func qedImages() []Image {
	q := &maker{format: "qed", container: "bare"}
	edit := func(class Class, name string, changes ...func([]byte)) {
		b := qed()
		for _, change := range changes {
			change(b)
		}
		q.add(class, name, formats.ErrUnsupported, Open, b)
	}
	edit(Chain, "its own backing file", func(b []byte) {
		b[16] = 1
		le.PutUint32(b[56:], 64)
		le.PutUint32(b[60:], uint32(copy(b[64:], "hostile.img")))
	})
	edit(Sizes, "the largest disk", put64(48, math.MaxUint64))
	edit(Sizes, "a backing name of 4 GiB", func(b []byte) { b[16] = 1 }, put32(56, 64), put32(60, math.MaxUint32))
	edit(Clusters, "clusters of no bytes", put32(4, 0))
	edit(Clusters, "the largest clusters", put32(4, math.MaxUint32), put32(8, math.MaxUint32))
	edit(Entries, "unknown features", put64(16, math.MaxUint64))
	edit(Aliasing, "an L1 table that is the header", put64(40, 0))
	edit(Time, "a disk that needs a check", func(b []byte) { b[16] = 2 })

	return q.images
}

func isoImages() []Image {
	i := &maker{format: "iso", container: "bare"}
	disc := iso()
	copy(disc[32<<10+80:], bytes.Repeat([]byte{0xff}, 8)) // the volume's size, twice
	i.add(Sizes, "a volume larger than the file", nil, Open, disc)
	disc = iso()
	copy(disc[32<<10+128:], []byte{0, 0, 0, 0}) // the logical block's size, twice
	i.add(Clusters, "blocks of no bytes", nil, Open, disc)
	disc = iso()
	copy(disc[32<<10+156:], bytes.Repeat([]byte{0xff}, 34)) // the root folder's record
	i.add(Entries, "a root folder past the end", nil, Open, disc)
	disc = iso()
	copy(disc[32<<10+158:], []byte{16, 0, 0, 0, 0, 0, 0, 16}) // a root folder that is the descriptor
	i.add(Aliasing, "a root folder that is its own descriptor", nil, Open, disc)
	i.add(Entries, "no descriptor", formats.ErrFormat, Open, make([]byte, 40<<10))
	i.add(Entries, "a disc that ends in its descriptor", formats.ErrFormat, Open, iso()[:32<<10+6])
	return i.images
}

var qedPlaces = []place{
	{"qed", "bare", "a backing file", formats.ErrUnsupported, func(name string) []byte {
		b := qed()
		b[16] = 1 | 4
		le.PutUint32(b[56:], 64)
		le.PutUint32(b[60:], uint32(copy(b[64:], name)))
		return b
	}},
}
