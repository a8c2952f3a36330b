package formats

import (
	"bytes"
	"encoding/binary"
)

// Same is how many entries of a table, from entry i on, are equal to entry i, up to
// most, at least 1, for what a reader does not want costs it nothing; each has size
// bytes, 4 or 8. Disks are mostly empty: a walk that looks at each entry of theirs
// takes a hundred times as long.
func Same(table []byte, size, i int, most int64) int64 {
	b := table[i*size:]
	if most < int64(len(b)/size) {
		b = b[:most*int64(size)]
	}
	first, at := b[:size], size
	if size == 4 && len(b) >= 8 { // so that entries are compared two at a time
		if !bytes.Equal(b[4:8], first) {
			return 1
		}
		first, at = b[:8], 8
	}
	if len(first) == 8 {
		word := binary.NativeEndian.Uint64(first)
		for at+8 <= len(b) && binary.NativeEndian.Uint64(b[at:]) == word {
			at += 8
		}
	}
	for at+size <= len(b) && bytes.Equal(b[at:at+size], first[:size]) {
		at += size
	}
	return int64(at / size)
}
