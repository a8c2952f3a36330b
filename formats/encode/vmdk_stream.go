package encode

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"glanced/formats"
)

const (
	descriptorSectors = 20  // from sector 1 on
	overhead          = 128 // sectors before the first grain: VMware begins with a whole grain's worth

	// Flags: the newline test bytes are valid, grains are compressed, there are markers.
	flags = 1<<0 | 1<<16 | 1<<17
	// atEnd as the place of the grain directory: the footer says it.
	atEnd   = 1<<64 - 1
	deflate = 1 // compressAlgorithm

	grainMarker = 12 // bytes before a grain's zlib stream: its sector (8), the stream's length (4)
)

// Types of metadata markers ("Markers").
const (
	markerEnd       = 0
	markerTable     = 1
	markerDirectory = 2
	markerFooter    = 3
)

// stream writes the parts of a streamOptimized image, and keeps count of where
// they lie. All of it is in whole sectors.
type stream struct {
	w        io.Writer
	at       int64 // sectors written
	capacity int64 // sectors

	directory []uint32         // the sector of each grain table; 0 = all of its grains are zeros
	table     [tableLen]uint32 // of the grains being written; 0 = zeros
	tableNo   int64
	some      bool // table has an entry
}

func newStream(w io.Writer, size int64) *stream {
	return &stream{w: w, capacity: ceil(size, sector), directory: make([]uint32, ceil(size, tableSpan))}
}

// begin writes all that lies before the first grain.
func (s *stream) begin() error {
	b := make([]byte, overhead*sector)
	copy(b, s.header(atEnd))
	copy(b[sector:(1+descriptorSectors)*sector], s.descriptor())
	return s.write(b)
}

// header is SparseExtentHeader; the footer is one with the directory's place.
func (s *stream) header(directory uint64) []byte {
	b, le := make([]byte, sector), binary.LittleEndian
	copy(b, "KDMV")
	le.PutUint32(b[4:], 3) // version
	le.PutUint32(b[8:], flags)
	le.PutUint64(b[12:], uint64(s.capacity))
	le.PutUint64(b[20:], grainSize/sector)
	le.PutUint64(b[28:], 1) // the descriptor's place
	le.PutUint64(b[36:], descriptorSectors)
	le.PutUint32(b[44:], tableLen)
	le.PutUint64(b[56:], directory)
	le.PutUint64(b[64:], overhead)
	copy(b[73:], "\n \r\n") // shows a text-mode transfer
	le.PutUint16(b[77:], deflate)
	return b
}

// descriptor is the text that describes the image. The extent's name is what
// VMware's tools write; nothing is opened by it.
func (s *stream) descriptor() string {
	cid := rand.Uint32N(0xfffffffe) // ffffffff means none
	cylinders, heads, sectors := geometry(s.capacity)
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY %d SPARSE "call-me-stream.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.virtualHWVersion = "4"
`, cid, s.capacity, cylinders, heads, sectors)
}

// geometry is what a BIOS makes of a SCSI disk of so many sectors: the fewer heads
// and sectors, the smaller the disk, and the cylinders that remain.
func geometry(capacity int64) (cylinders, heads, sectors int64) {
	const gib = 1 << 30 / sector
	switch {
	case capacity < gib:
		heads, sectors = 64, 32
	case capacity < 2*gib:
		heads, sectors = 128, 32
	default:
		heads, sectors = 255, 63
	}
	return min(max(capacity/(heads*sectors), 1), 65535), heads, sectors
}

// grains writes a batch of grains, which come in rising order.
func (s *stream) grains(b *batch) error {
	if len(b.coded) == 0 {
		return nil
	}
	if no := b.first / tableLen; no != s.tableNo {
		if err := s.endTable(); err != nil {
			return err
		}
		s.tableNo = no
	}
	at := s.at
	if err := s.write(b.coded); err != nil {
		return err
	}
	for i, n := range b.sectors {
		if n > 0 {
			s.table[b.first%tableLen+int64(i)] = uint32(at)
			s.some = true
			at += int64(n)
		}
	}
	return nil
}

// endTable writes the grain table, if any of its grains were.
func (s *stream) endTable() error {
	if !s.some {
		return nil
	}
	at, err := s.section(markerTable, s.table[:])
	s.directory[s.tableNo] = uint32(at)
	s.table, s.some = [tableLen]uint32{}, false
	return err
}

// end writes all that lies behind the last grain.
func (s *stream) end() error {
	if err := s.endTable(); err != nil {
		return err
	}
	at, err := s.section(markerDirectory, s.directory)
	if err != nil {
		return err
	}
	b := append(marker(1, markerFooter), s.header(uint64(at))...)
	return s.write(append(b, marker(0, markerEnd)...))
}

// section writes a table behind its marker, and says in which sector it lies.
func (s *stream) section(kind uint32, table []uint32) (at int64, err error) {
	sectors := ceil(int64(len(table))*4, sector)
	b := make([]byte, (1+sectors)*sector)
	copy(b, marker(sectors, kind))
	for i, entry := range table {
		binary.LittleEndian.PutUint32(b[sector+4*i:], entry)
	}
	at = s.at + 1
	return at, s.write(b)
}

// marker is a metadata marker: how many sectors follow it, a size of 0, a type.
func marker(sectors int64, kind uint32) []byte {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, uint64(sectors))
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}

// write writes whole sectors.
func (s *stream) write(b []byte) error {
	if s.at+int64(len(b)/sector) > maxSectors {
		return fmt.Errorf("%w: the disk, compressed, takes more than the 2 TiB that a vmdk file can have; take qcow2 or raw", formats.ErrLimit)
	}
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("write the vmdk: %w", err)
	}
	s.at += int64(len(b) / sector)
	return nil
}
