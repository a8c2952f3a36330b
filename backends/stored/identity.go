package stored

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Identity names bytes for ever: where two are equal, the bytes are, in another
// process and after a restart too. What is kept on a disk may be keyed by it. ""
// is the identity of bytes of which nobody can say so. It is a hash, and tells
// nothing of what it was made of.
type Identity string

// NewIdentity makes an identity of what tells bytes apart: which store, which key
// or place in it, which version. It tells them apart as well as the store's versions
// do. It is "" where version is: without one, the same place may hold other bytes
// tomorrow.
func NewIdentity(store, place, version string) Identity {
	if version == "" {
		return ""
	}
	return hashed(store, place, version)
}

// Section is the identity of n bytes at off of the bytes that id names.
func (id Identity) Section(off, n int64) Identity {
	if id == "" {
		return ""
	}
	var at [16]byte
	binary.BigEndian.PutUint64(at[:], uint64(off))
	binary.BigEndian.PutUint64(at[8:], uint64(n))
	return hashed("section", string(id), string(at[:]))
}

// hashed keeps the parts apart by their lengths.
func hashed(parts ...string) Identity {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return Identity(hex.EncodeToString(h.Sum(nil)))
}
