package encode

import (
	"bytes"
	"errors"
	"testing"

	"glanced/formats"
)

// A vmdk's tables hold 32 bits for a sector: what would lie beyond is not written.
func TestVMDKFileEndsAt2TiB(t *testing.T) {
	var out bytes.Buffer
	s := newStream(&out, 4<<40)
	s.at = maxSectors - 3
	grains := &batch{first: 5, coded: make([]byte, 3*sector), sectors: [batchLen]uint16{0, 3}}
	if err := s.grains(grains); err != nil || s.table[6] != maxSectors-3 {
		t.Fatalf("the last grain that fits lies at %d (%v)", s.table[6], err)
	}
	out.Reset()
	grains.first = 16
	if err := s.grains(grains); !errors.Is(err, formats.ErrLimit) || out.Len() > 0 {
		t.Errorf("%v, after %d bytes; want ErrLimit after none", err, out.Len())
	}
	if err := s.end(); !errors.Is(err, formats.ErrLimit) {
		t.Errorf("the end of a full file: %v", err)
	}
}

func TestVMDKGeometry(t *testing.T) {
	for capacity, want := range map[int64][3]int64{
		1:             {1, 64, 32},
		204800:        {100, 64, 32}, // 100 MiB
		2<<20 - 1:     {1023, 64, 32},
		2 << 20:       {512, 128, 32}, // 1 GiB
		4 << 20:       {261, 255, 63}, // 2 GiB
		maxVMDK / 512: {65535, 255, 63},
	} {
		c, h, s := geometry(capacity)
		if got := [3]int64{c, h, s}; got != want {
			t.Errorf("%d sectors: %v, want %v", capacity, got, want)
		}
	}
}
