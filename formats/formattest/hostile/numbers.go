package hostile

import (
	"encoding/binary"
	"strconv"
)

var le = binary.LittleEndian

const sector = 512

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// put32 and put64 are edits of little-endian numbers.
func put32(at int, v uint32) func([]byte) { return func(b []byte) { le.PutUint32(b[at:], v) } }
func put64(at int, v uint64) func([]byte) { return func(b []byte) { le.PutUint64(b[at:], v) } }
