package vhdx

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"glanced/backends/stored"
	"glanced/formats"
)

// The log, "Log" (2.3): a ring of entries, each in whole sectors of 4 KiB.
const (
	logSector       = 4 * kib
	entrySignature  = "loge"
	entryHeader     = 64 // bytes; descriptors follow
	descriptorBytes = 32
	zeroSignature   = "zero"
	dataSignature   = "desc"
	pageSignature   = "data"

	// maxLog bounds the log that is played back in memory, bytes: what it wrote is
	// at most as long. Windows makes logs of 1 MiB.
	maxLog = 16 * mib
	// maxSummed bounds the bytes that are checksummed in search of the entries that
	// count, as a multiple of the log's length. Entries do not overlap, so that an
	// honest log needs little more than one.
	maxSummed = 8
	// maxGrowth bounds how much longer than the stored file the log may make it,
	// bytes: a disk grows by a few blocks at a time.
	maxGrowth = 1 << 30
)

// replay is the file with its log played back. A file without a log to be played
// back is taken as it is.
func replay(ctx context.Context, src stored.Bytes, h *header) (*view, error) {
	v := &view{src: src, size: src.Size()}
	if h.logID == "" {
		return v, nil
	}
	if h.log.len() > maxLog {
		return nil, fmt.Errorf("%w: a vhdx log of %d bytes that was not played back (at most %d); open and close the disk with what wrote it", formats.ErrLimit, h.log.len(), maxLog)
	}
	l := &ring{id: h.logID, bytes: make([]byte, h.log.len())}
	if err := src.ReadAt(ctx, l.bytes, h.log.begin); err != nil {
		return nil, fmt.Errorf("read the vhdx log: %w", err)
	}
	active, err := l.active()
	if err != nil {
		return nil, err
	}
	last := active[len(active)-1]
	if last.flushed > uint64(v.size) {
		return nil, fmt.Errorf("%w: the vhdx file was cut off: it has %d bytes, and its log knows of %d", formats.ErrCorrupt, v.size, last.flushed)
	}
	if last.fileEnd > uint64(v.size) {
		v.size = int64(min(last.fileEnd, math.MaxInt64))
	}
	var writes []write
	for _, e := range active {
		if writes, err = l.writes(e, writes); err != nil {
			return nil, err
		}
	}
	for _, w := range writes {
		// The header says where the log is, and so is not changed through it (2.2).
		if w.begin < regionTablesAt()[0] || w.overlaps(h.log) {
			return nil, fmt.Errorf("%w: the vhdx log writes %d bytes at %d, over the headers or itself", formats.ErrCorrupt, w.len(), w.begin)
		}
		v.size = max(v.size, w.end)
	}
	if v.size-src.Size() > maxGrowth {
		return nil, fmt.Errorf("%w: the vhdx log makes the file of %d bytes grow to %d", formats.ErrLimit, src.Size(), v.size)
	}
	v.patches, v.pages = lastWins(writes)
	return v, nil
}

// ring is the log's bytes, of which the last is followed by the first.
type ring struct {
	id     guid
	bytes  []byte
	summed int // bytes checksummed so far
}

// entry is a log entry whose checksum is right, "Entry Header" (2.3.1.1).
type entry struct {
	at          int // where it begins
	length      int // bytes
	tail        int // where the oldest entry begins that was to be kept when this one was written
	sequence    uint64
	descriptors int
	flushed     uint64 // the file was at least as long, on disk
	fileEnd     uint64 // the file is to be made at least as long
}

// slice is n bytes of the ring from at, copied where they pass its end.
func (l *ring) slice(at, n int) []byte {
	at %= len(l.bytes)
	if at+n <= len(l.bytes) {
		return l.bytes[at : at+n : at+n]
	}
	return append(append(make([]byte, 0, n), l.bytes[at:]...), l.bytes[:n-(len(l.bytes)-at)]...)
}

// active is the newest sequence of entries that is whole, oldest first ("Log
// Replay", 2.3.3).
func (l *ring) active() ([]entry, error) {
	valid, err := l.entries()
	if err != nil {
		return nil, err
	}
	var best []entry
	for tail := 0; tail < len(l.bytes); {
		chain := l.chain(valid, tail)
		first := -1 // the one that the newest of the chain calls the tail
		for i := range chain {
			if chain[i].at == chain[len(chain)-1].tail {
				first = i
			}
		}
		if first < 0 {
			tail += logSector
			continue
		}
		newest := chain[len(chain)-1]
		if best == nil || newest.sequence > best[len(best)-1].sequence {
			best = chain[first:]
		}
		tail = newest.at + newest.length
		if newest.at < chain[0].at {
			break // it went past the ring's end: all was looked at
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: the vhdx header says that the log is to be played back, and it holds no whole sequence of entries", formats.ErrCorrupt)
	}
	return best, nil
}

// entries is every valid entry, by the sector that it begins at.
func (l *ring) entries() (map[int]entry, error) {
	valid := make(map[int]entry)
	for at := 0; at < len(l.bytes); at += logSector {
		if e, ok := l.entry(at); ok {
			valid[at] = e
		}
		if l.summed/maxSummed > len(l.bytes) {
			return nil, fmt.Errorf("%w: the vhdx log has many entries that overlap each other", formats.ErrLimit)
		}
	}
	return valid, nil
}

// chain is the entries that follow each other from at on, each with a sequence
// number one greater than the last. Together they are no longer than the ring.
func (l *ring) chain(valid map[int]entry, at int) []entry {
	var chain []entry
	for room := len(l.bytes); ; {
		e, ok := valid[at]
		if !ok || e.length > room || len(chain) > 0 && e.sequence != chain[len(chain)-1].sequence+1 {
			return chain
		}
		chain = append(chain, e)
		room -= e.length
		at = (at + e.length) % len(l.bytes)
	}
}

// entry reads the entry that begins at at; ok is false where there is no valid one.
func (l *ring) entry(at int) (e entry, ok bool) {
	le := binary.LittleEndian
	b := l.bytes[at:][:logSector]
	if string(b[:4]) != entrySignature || parseGUID(b[32:]) != l.id {
		return e, false
	}
	length, tail, n := int64(le.Uint32(b[8:])), int64(le.Uint32(b[12:])), int64(le.Uint32(b[24:]))
	e = entry{
		at: at, length: int(length), tail: int(tail), descriptors: int(n),
		sequence: le.Uint64(b[16:]), flushed: le.Uint64(b[48:]), fileEnd: le.Uint64(b[56:]),
	}
	size := int64(len(l.bytes))
	if length == 0 || length%logSector != 0 || length > size || tail%logSector != 0 || tail >= size || e.sequence == 0 || n > length/descriptorBytes || e.descriptorSectors()*logSector > e.length {
		return e, false
	}
	whole := l.slice(at, e.length)
	l.summed += e.length
	return e, sealed(whole, entrySignature) && e.holdsTogether(whole)
}

// descriptorSectors is how many sectors the header and the descriptors take.
func (e *entry) descriptorSectors() int {
	return (entryHeader + e.descriptors*descriptorBytes + logSector - 1) / logSector
}

// holdsTogether says that the entry's descriptors and its data sectors are those
// of its sequence number, and that there is a data sector for each that needs one.
func (e *entry) holdsTogether(whole []byte) bool {
	le := binary.LittleEndian
	at := e.descriptorSectors() * logSector // of the next data sector
	for i := range e.descriptors {
		d := whole[entryHeader+descriptorBytes*i:][:descriptorBytes]
		if le.Uint64(d[24:]) != e.sequence {
			return false
		}
		switch string(d[:4]) {
		case zeroSignature:
		case dataSignature:
			if at > len(whole)-logSector {
				return false
			}
			page := whole[at:][:logSector]
			if string(page[:4]) != pageSignature || le.Uint32(page[4:]) != uint32(e.sequence>>32) || le.Uint32(page[logSector-4:]) != uint32(e.sequence) {
				return false
			}
			at += logSector
		default:
			return false
		}
	}
	return at == len(whole)
}

// writes adds what an entry's descriptors write ("Zero Descriptor" and "Data
// Descriptor", 2.3.1.2 and 2.3.1.3) to all. It restores the pages in the ring
// itself: e is not valid any more afterwards.
func (l *ring) writes(e entry, all []write) ([]write, error) {
	le := binary.LittleEndian
	whole := l.slice(e.at, e.length)
	at := e.descriptorSectors() * logSector
	for i := range e.descriptors {
		d := whole[entryHeader+descriptorBytes*i:][:descriptorBytes]
		off, n := le.Uint64(d[16:]), uint64(logSector)
		var page []byte
		if string(d[:4]) == zeroSignature {
			n = le.Uint64(d[8:])
		} else {
			// The ends of the page gave way to the sequence number.
			page = whole[at:][:logSector]
			copy(page, d[8:16])
			copy(page[logSector-4:], d[4:8])
			at += logSector
		}
		if off%logSector != 0 || n%logSector != 0 || off > math.MaxInt64-n || n > math.MaxInt64 {
			return nil, fmt.Errorf("%w: the vhdx log writes %d bytes at %d", formats.ErrCorrupt, n, off)
		}
		if n > 0 {
			all = append(all, write{span: span{int64(off), int64(off + n)}, page: page})
		}
	}
	return all, nil
}
