package hostile

import (
	"math"

	"glanced/formats"
)

// logEntry is an entry of a vhdx log ("Log Entry", [MS-VHDX] 2.3.1) as it is
// written, with fields that tests change after the rest was filled in.
type logEntry struct {
	at, tail    int
	sequence    uint64
	flushed     uint64
	last        uint64
	zeros       []zeroWrite
	pages       []uint64 // offsets in the file that get a page of noise
	descriptors uint32   // said to be there; 0 = as many as there are
	length      uint32   // said to be long, bytes; 0 = as long as it is
}

type zeroWrite struct{ off, n uint64 }

func (e logEntry) put(b []byte) {
	n := len(e.zeros) + len(e.pages)
	head := (64 + 32*n + 4095) / 4096 * 4096
	f := make([]byte, head+4096*len(e.pages))
	copy(f, "loge")
	le.PutUint32(f[8:], uint32(len(f)))
	le.PutUint32(f[12:], uint32(e.tail))
	le.PutUint64(f[16:], e.sequence)
	le.PutUint32(f[24:], uint32(n))
	copy(f[32:], guid(xLogID))
	le.PutUint64(f[48:], e.flushed)
	le.PutUint64(f[56:], e.last)
	for i, z := range e.zeros {
		d := f[64+32*i:]
		copy(d, "zero")
		le.PutUint64(d[8:], z.n)
		le.PutUint64(d[16:], z.off)
		le.PutUint64(d[24:], e.sequence)
	}
	for i, off := range e.pages {
		d := f[64+32*(len(e.zeros)+i):]
		copy(d, "desc")
		le.PutUint64(d[16:], off)
		le.PutUint64(d[24:], e.sequence)
		page := f[head+4096*i:][:4096]
		for j := range page {
			page[j] = 0xa5
		}
		copy(page, "data")
		le.PutUint32(page[4:], uint32(e.sequence>>32))
		le.PutUint32(page[4092:], uint32(e.sequence))
	}
	if e.descriptors != 0 {
		le.PutUint32(f[24:], e.descriptors)
	}
	if e.length != 0 {
		le.PutUint32(f[8:], e.length)
	}
	vhdxSum(f)
	log := b[xLog : xLog+mib]
	copy(log, f[copy(log[e.at:], f):])
}

// vhdxLogged is an image whose log is to be played back.
func vhdxLogged(entries ...logEntry) []byte {
	return vhdx(nil, func(b []byte) {
		for _, at := range []int{xHeader1, xHeader2} {
			copy(b[at+48:], guid(xLogID))
		}
		for _, e := range entries {
			e.put(b)
		}
	})
}

func vhdxLogs() []Image {
	m := &maker{format: "vhdx", container: "bare"}
	corrupt, limit := formats.ErrCorrupt, formats.ErrLimit
	bad := func(name string, want error, entries ...logEntry) {
		m.add(Log, name, want, Open, vhdxLogged(entries...))
	}
	const end = 5 * mib
	good := logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{xBlock}}

	bad("no entry at all", corrupt)
	b := vhdxLogged(good)
	b[xLog+100]++
	m.add(Log, "an entry with a wrong checksum", corrupt, Open, b)
	bad("sequence number 0", corrupt, logEntry{flushed: end, last: end, pages: []uint64{xBlock}})
	bad("a tail that is not there", corrupt, logEntry{sequence: 1, tail: 512 * kib, flushed: end, last: end, pages: []uint64{xBlock}})
	bad("a tail past the log", corrupt, logEntry{sequence: 1, tail: math.MaxInt32 &^ 4095, flushed: end, last: end, pages: []uint64{xBlock}})
	bad("two entries, each the other's tail", corrupt,
		logEntry{sequence: 1, tail: 8192, flushed: end, last: end, pages: []uint64{xBlock}},
		logEntry{at: 8192, sequence: 3, flushed: end, last: end, pages: []uint64{xBlock}})
	bad("4 billion descriptors", corrupt, logEntry{sequence: 1, descriptors: math.MaxUint32, pages: []uint64{xBlock}})
	bad("an entry of 4 GiB", corrupt, logEntry{sequence: 1, length: math.MaxUint32 &^ 4095, pages: []uint64{xBlock}})
	bad("zeros over 8 EiB", limit, logEntry{sequence: 1, flushed: end, last: end, zeros: []zeroWrite{{xBlock, math.MaxInt64 &^ (16*mib - 1)}}})
	bad("zeros whose end overflows", corrupt, logEntry{sequence: 1, flushed: end, last: end, zeros: []zeroWrite{{math.MaxUint64 &^ 4095, 1 << 20}}})
	bad("zeros over the headers", corrupt, logEntry{sequence: 1, flushed: end, last: end, zeros: []zeroWrite{{0, mib}}})
	bad("a page over the log", corrupt, logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{xLog}})
	bad("a page at no whole sector", corrupt, logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{xBlock + 1}})
	bad("a page past all ends", corrupt, logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{math.MaxUint64 &^ 4095}})
	bad("a page 8 TiB away", limit, logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{8 << 40}})
	bad("a file of 16 EiB", limit, logEntry{sequence: 1, flushed: end, last: math.MaxUint64, pages: []uint64{xBlock}})
	bad("a file that was longer", corrupt, logEntry{sequence: 1, flushed: 1 << 40, last: 1 << 40, pages: []uint64{xBlock}})
	bad("noise over the metadata", corrupt, logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{xMetadata}})
	m.add(Log, "noise over the BAT", corrupt, Map, vhdxLogged(logEntry{sequence: 1, flushed: end, last: end, pages: []uint64{xBAT}}))

	// Entries that all reach to the end of the log: each is long to checksum.
	m.add(Log, "entries that overlap", limit, Open, vhdx(nil, func(b []byte) {
		for _, at := range []int{xHeader1, xHeader2} {
			copy(b[at+48:], guid(xLogID))
		}
		for at := 0; at < mib; at += 4096 {
			e := b[xLog+at:]
			copy(e, "loge")
			le.PutUint32(e[8:], mib)
			le.PutUint64(e[16:], 1)
			copy(e[32:], guid(xLogID))
		}
	}))
	most := logEntry{sequence: 1, flushed: end, last: end}
	for i := range 30_000 {
		most.zeros = append(most.zeros, zeroWrite{xBlock + uint64(i%128)*8192, 4096})
	}
	m.add(Log, "the most descriptors, over and over the same", nil, Open, vhdxLogged(most))

	// A log of 16 MiB is the longest that is played back.
	long := vhdx(nil, func(b []byte) {
		for _, at := range []int{xHeader1, xHeader2} {
			copy(b[at+48:], guid(xLogID))
			le.PutUint64(b[at+72:], 5*mib)
			le.PutUint32(b[at+68:], 64*mib)
		}
	})
	m.addFile(Log, "a log of 64 MiB", limit, Open, file{sparse(long).parts, 70 * mib})
	return m.images
}
