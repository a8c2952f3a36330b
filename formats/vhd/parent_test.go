package vhd_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/uuid"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vhd"
)

// shelf is an engine.Parent of images by the names that children know them by.
type shelf struct {
	t      *testing.T
	engine *engine.Engine
	images map[string][]byte
	asked  []formats.Ref
}

func newShelf(t *testing.T, images map[string][]byte) *shelf {
	return &shelf{t: t, engine: engineOf(t), images: images}
}

func (s *shelf) resolve(ctx context.Context, ref formats.Ref) (*engine.Disk, error) {
	s.asked = append(s.asked, ref)
	d, err := s.engine.Open(ctx, vhd.Driver(), formattest.Memory(s.images[ref.Name]), engine.OpenOptions{Parent: s.resolve})
	if err == nil {
		s.t.Cleanup(func() { d.Close() })
	}
	return d, err
}

func idOf(b byte) string { return uuid.UUID([]byte(strings.Repeat(string(b), 16))).String() }

// A chain of three: what a child does not have of a block, sector by sector, is
// its parent's. The base is smaller than its children, or larger.
func TestParentsShowThrough(t *testing.T) {
	for _, sectors := range []int{700, 300, 1000} {
		guest := func(seed int) []byte { return guestOf(700*sector + 32*sector*seed)[:700*sector] }
		bottom := guestOf(sectors * sector)
		for name, base := range map[string][]byte{
			"fixed":   builder{id: 'b'}.fixed(bottom),
			"dynamic": builder{id: 'b', block: 64 << 10}.sparse(bottom, all).image,
		} {
			middle := builder{id: 'm', parent: 'b', parentName: "base.vhd", backward: true}.sparse(guest(1), mixture(1)).image
			top := builder{id: 't', parent: 'm', parentName: "middle.vhd", block: 32 << 10}.sparse(guest(2), mixture(2)).image
			s := newShelf(t, map[string][]byte{"base.vhd": base, "middle.vhd": middle})

			below := make([]byte, 700*sector)
			copy(below, bottom)
			want := overlay(guest(2), overlay(guest(1), below, mixture(1)), mixture(2))
			d := openDisk(t, formattest.Memory(top), s.resolve)
			mustRead(t, d, want)
			asked := []formats.Ref{
				{Kind: formats.RefParent, Name: "middle.vhd", Format: "vhd", Identity: idOf('m')},
				{Kind: formats.RefParent, Name: "base.vhd", Format: "vhd", Identity: idOf('b')},
			}
			if !slices.Equal(s.asked, asked) {
				t.Errorf("%s: the resolver was asked for %+v", name, s.asked)
			}
			info := d.Info()
			if info.Identity != idOf('t') || info.Refused != nil || info.Variant != "differencing" || !slices.Equal(info.Refs, asked[:1]) {
				t.Errorf("%s: Info is %+v", name, info)
			}
		}
	}
}

// A differencing disk on an image that qemu-img made.
func TestAParentMayBeQemus(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := filepath.Join(t.TempDir(), "base.vhd")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", path, "1M")
	testbed.Run(t, "qemu-io", "-f", "vpc", "-c", "write -P 120 100k 300k", path)
	base, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	below := make([]byte, 1<<20)
	copy(below[100<<10:], strings.Repeat("x", 300<<10))
	guest := guestOf(1 << 20)
	x := builder{parent: 'p', parentName: "base.vhd"}.sparse(guest, mixture(9))
	child := x.headers(func(h []byte) { copy(h[40:56], base[68:84]) })
	mustRead(t, openDisk(t, formattest.Memory(child), newShelf(t, map[string][]byte{"base.vhd": base}).resolve), overlay(guest, below, mixture(9)))
}

func TestAnotherParentIsRefused(t *testing.T) {
	guest := guestOf(64 * sector)
	child := builder{parent: 'p', parentName: "base.vhd"}.sparse(guest, mixture(1)).image
	for name, parent := range map[string]builder{"another": {id: 'q'}, "the child itself": {}} {
		s := newShelf(t, map[string][]byte{"base.vhd": parent.fixed(guest)})
		_, err := s.engine.Open(t.Context(), vhd.Driver(), formattest.Memory(child), engine.OpenOptions{Parent: s.resolve})
		if !errors.Is(err, formats.ErrReference) || len(s.asked) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheParentsNameComesFromWhereThereIsOne(t *testing.T) {
	w2 := func(s string) string {
		b, err := binary.Append(nil, binary.LittleEndian, append(utf16.Encode([]rune(s)), 0, 'X'))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const relative, absolute, macX = 0x57327275, 0x57326b75, 0x4d616358
	for _, c := range []struct {
		name, header string
		locators     map[uint32]string
		want         string
	}{
		{"header", "gốc.vhd", map[uint32]string{relative: w2("other.vhd")}, "gốc.vhd"},
		{"longest", strings.Repeat("中", 256), nil, strings.Repeat("中", 256)},
		{"no text", "\uFFFE\x01", nil, "\uFFFE\x01"},
		{"relative first", "", map[uint32]string{absolute: w2(`C:\a.vhd`), relative: w2(`.\a.vhd`), macX: "file:///a.vhd"}, `.\a.vhd`},
		{"absolute", "", map[uint32]string{absolute: w2(`C:\a.vhd`), macX: "file:///a.vhd"}, `C:\a.vhd`},
		{"URL", "", map[uint32]string{macX: "file:///a.vhd\x00rest"}, "file:///a.vhd"},
		{"URL that is no text", "", map[uint32]string{macX: "a\xff.vhd"}, "a\uFFFD.vhd"},
		{"longer than a name can be", "", map[uint32]string{macX: strings.Repeat("a", 5000)}, strings.Repeat("a", 2048)},
		{"unknown platform", "", map[uint32]string{0x12345678: "a.vhd"}, idOf('p')},
		{"none", "", nil, idOf('p')},
	} {
		image := builder{parent: 'p', parentName: c.header, locators: c.locators}.sparse(guestOf(64*sector), all).image
		info, err := vhd.Driver().Inspect(t.Context(), formattest.Memory(image))
		want := []formats.Ref{{Kind: formats.RefParent, Name: c.want, Format: "vhd", Identity: idOf('p')}}
		if err != nil || !slices.Equal(info.Refs, want) || !errors.Is(info.Refused, formats.ErrReference) {
			t.Errorf("%s: %+v, %v (%v)", c.name, info.Refs, info.Refused, err)
		}
	}
}
