package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"glanced/formats/formattest"
	"glanced/formats/vhdx"
)

// FuzzOpenVHDX changes bytes of valid images, where metadata lies, and sets every
// checksum right again: random bytes alone would get no further than to those.
//
// A change is four bytes and what they ask for: the place (of fuzzedPlaces), the
// offset from there (little-endian), and how many bytes follow.
func FuzzOpenVHDX(f *testing.F) {
	bases := fuzzedImages()
	var entry []byte // the first block's, in state 7, and a page of the log's
	entry = append(entry, 5, 0, 0, 1, partially)
	entry = append(entry, 8, 64, 0, 4, 'z', 'e', 'r', 'o')
	for i := range bases {
		f.Add(byte(i), []byte(nil))
		f.Add(byte(i), entry)
	}
	for place := range fuzzedPlaces() {
		f.Add(byte(place), []byte{byte(place), 8, 0, 4, 255, 255, 255, 255, byte(place), 16, 0, 8, 0, 0, 0x10, 0, 0, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, base byte, changes []byte) {
		image := bytes.Clone(bases[int(base)%len(bases)])
		change(image, changes)
		_ = formattest.Walk(t, vhdx.Driver(), image)
	})
}

// fuzzedImages are an image of each kind; the last ones have a log to play back.
func fuzzedImages() [][]byte {
	guest := guestOf(2 * mib)
	child := &builder{size: 2 * mib, locator: locatorTo(parentIdentity), blocks: map[int64]block{1: {partially, guest[:mib]}}}
	child.mark(2048, 100)
	child.mark(3000, 1)
	images := [][]byte{
		builder{}.of(guest).image(),
		builder{blockSize: 2 * mib, sectorSize: 4096, fixed: true}.of(guest).image(),
		child.image(),
	}
	replays := replays()
	for _, name := range slices.Sorted(maps.Keys(replays)) {
		image, _ := dirtyImage(replays[name].put)
		images = append(images, image)
	}
	return images
}

// fuzzedPlaces are where an image is changed.
func fuzzedPlaces() []int {
	return []int{
		header1, header2, regionTable1, metadataAt, itemsAt, batAt, batAt + 4096*8, locatorAt,
		logAt, logAt + 4096, logAt + 8192, logAt + 12288, logAt + 40960, logAt + 512*kib, logAt + mib - 4096, regionTable2, 0,
	}
}

// change applies changes and sets the checksums right.
func change(image, changes []byte) {
	places := fuzzedPlaces()
	for len(changes) > 4 {
		at := places[int(changes[0])%len(places)] + int(binary.LittleEndian.Uint16(changes[1:]))
		n := min(int(changes[3]), len(changes)-4)
		if at < len(image) {
			copy(image[at:], changes[4:4+n])
		}
		changes = changes[4+n:]
	}
	log := image[logAt : logAt+mib]
	for at := mib - 4096; at >= 0; at -= 4096 { // backwards: one may lie within another
		n := int64(binary.LittleEndian.Uint32(log[at+8:]))
		if string(log[at:at+4]) == "loge" && n >= 64 && n <= int64(mib-at) {
			sum(log[at : at+int(n)])
		}
	}
	seal(image)
}
