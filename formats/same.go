package formats

import (
	"bytes"
	"encoding/binary"
)

// Same is how many entries of a table, from entry i on, are equal to entry i; each
// has size bytes, 4 or 8. Disks are mostly empty: a walk that looks at each entry of
// theirs takes a hundred times as long.
func Same(table []byte, size, i int) int {
	b := table[i*size:]
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
	return at / size
}
