package iso_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/iso"
)

// descriptor is one volume descriptor of 2048 bytes.
func descriptor(kind byte, id string, version byte) []byte {
	d := make([]byte, 2048)
	d[0], d[6] = kind, version
	copy(d[1:], id)
	return d
}

// discOf is an image with these volume descriptors and some content.
func discOf(descriptors ...[]byte) []byte {
	disc := make([]byte, 32<<10)
	for _, d := range descriptors {
		disc = append(disc, d...)
	}
	return append(disc, bytes.Repeat([]byte("content of files "), 1000)...)
}

// disc is a minimal ISO 9660 image.
func disc() []byte {
	primary := descriptor(1, "CD001", 1)
	copy(primary[40:], "VOLUME                          ")
	binary.LittleEndian.PutUint16(primary[128:], 2048)
	binary.BigEndian.PutUint16(primary[130:], 2048)
	return discOf(primary, descriptor(255, "CD001", 1))
}

// hybrid is a disc that boots from a stick too: a partition table in its first sector.
func hybrid() []byte {
	d := disc()
	copy(d, "\xeb\x63\x90 boot code")
	copy(d[446:], []byte{0x80, 0, 1, 0, 0x17, 0xff, 0xff, 0xff, 0, 0, 0, 0, 96, 0, 0, 0})
	copy(d[510:], "\x55\xaa")
	copy(d[512:], "EFI PART")
	return d
}

func TestISO(t *testing.T) {
	for name, image := range map[string][]byte{"plain": disc(), "hybrid": hybrid()} {
		t.Run(name, func(t *testing.T) {
			formattest.Suite{
				Driver:       iso.Driver(),
				Image:        func(*testing.T) []byte { return image },
				NoReferences: "a disc is bytes; the names in its file system are its own files",
			}.Run(t)
		})
	}
}

// That file(1) says so too shows that the tests' disc is none of their own making.
func TestFileAgreesThatItIsADisc(t *testing.T) {
	testbed.Need(t, "file", "file")
	for name, image := range map[string][]byte{"plain": disc(), "hybrid": hybrid()} {
		path := filepath.Join(t.TempDir(), "disc.iso")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if said := testbed.Run(t, "file", "-k", path); !strings.Contains(said, "ISO 9660") {
			t.Errorf("%s: file says %s", name, said)
		}
	}
}

func TestADiscIsReadAsItIs(t *testing.T) {
	image := hybrid()
	e := engine.New(engine.Options{})
	defer e.Close()
	d, err := e.Open(t.Context(), iso.Driver(), formattest.Memory(image), engine.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, image) {
		t.Errorf("the disk is not the file (%v)", err)
	}
}

func TestWhatIsRecognised(t *testing.T) {
	for _, c := range []struct {
		name string
		head []byte
		want bool
	}{
		{"boot record first", discOf(descriptor(0, "CD001", 1)), true},
		{"primary", discOf(descriptor(1, "CD001", 1)), true},
		{"supplementary", discOf(descriptor(2, "CD001", 1)), true},
		{"enhanced", discOf(descriptor(2, "CD001", 2)), true},
		{"partition", discOf(descriptor(3, "CD001", 1)), true},
		{"terminator alone", discOf(descriptor(255, "CD001", 1)), true},
		{"UDF alone", discOf(descriptor(0, "BEA01", 1), descriptor(0, "NSR03", 1)), true},
		{"UDF without its beginning", discOf(descriptor(0, "NSR02", 1)), true},
		{"no such type", discOf(descriptor('x', "CD001", 1)), false},
		{"no such version", discOf(descriptor(1, "CD001", 'x')), false},
		{"in text", bytes.Repeat([]byte("CD001 "), 10<<10), false},
		{"second descriptor only", discOf(make([]byte, 2048), descriptor(1, "CD001", 1)), false},
		{"cut off", discOf(descriptor(1, "CD001", 1))[:32<<10+6], false},
	} {
		if got := iso.Driver().Probe(c.head); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if !c.want {
			formattest.Refuse(t, iso.Driver(), c.head, formats.ErrFormat)
		}
	}
}

func FuzzOpenISO(f *testing.F) {
	formattest.FuzzOpen(f, iso.Driver(), append(hostile.Seeds("iso"), disc(), hybrid(), discOf(descriptor(0, "BEA01", 1)))...)
}
