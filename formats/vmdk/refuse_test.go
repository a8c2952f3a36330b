package vmdk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vmdk"
)

var le = binary.LittleEndian

// smallStream is a disk of 16 grains in VMware's style, its directory in the footer.
func smallStream() ([]byte, *builder) {
	b := &builder{grainSize: 8}
	return b.stream(guestOf(64 << 10)), b
}

// smallSparse is the same disk as monolithicSparse.
func smallSparse() ([]byte, *builder) {
	b := &builder{version: 1, grainSize: 8}
	return b.sparse(guestOf(64 << 10)), b
}

// described is a small sparse disk with this descriptor.
func described(text string) []byte {
	b := &builder{version: 1, descriptor: text}
	return b.sparse(guestOf(64 << 10))
}

// edited is the plain descriptor of described with old replaced.
func edited(old, new string) []byte {
	text := descriptorOf("monolithicSparse", 128, "disk.vmdk")
	if !strings.Contains(text, old) {
		panic("the descriptor has no " + old)
	}
	return described(strings.Replace(text, old, new, 1))
}

const flatText = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n" +
	"# Extent description\nRW 2048 FLAT \"../../etc/passwd\" 0\n\nddb.adapterType = \"ide\"\n"

func TestContract(t *testing.T) {
	image := func(b []byte) func(*testing.T) []byte { return func(*testing.T) []byte { return b } }
	extent := func(name, format string) formats.Ref {
		return formats.Ref{Kind: formats.RefExtent, Name: name, Format: format}
	}
	formattest.Suite{
		Driver: vmdk.Driver(),
		Image: func(t *testing.T) []byte {
			b := builder{tableLen: 4, grainSize: 8}
			return b.stream(guestOf(80 * sector * 8))
		},
		References: []formattest.Reference{
			{Name: "delta", Image: image(edited("parentCID=ffffffff", "parentCID=123\nparentFileNameHint=\"/vmfs/base.vmdk\"")),
				Ref: formats.Ref{Kind: formats.RefParent, Name: "/vmfs/base.vmdk", Format: "vmdk", Identity: "00000123"}},
			{Name: "delta by CID alone", Image: image(edited("parentCID=ffffffff", "parentCID=0")),
				Ref: formats.Ref{Kind: formats.RefParent, Format: "vmdk", Identity: "00000000"}},
			{Name: "delta by hint alone", Image: image(edited("parentCID=ffffffff", "parentCID=ffffffff\nparentFileNameHint=\"基.vmdk\"")),
				Ref: formats.Ref{Kind: formats.RefParent, Name: "基.vmdk", Format: "vmdk"}},
			{Name: "monolithicFlat beside its data", Image: image(splitText("monolithicFlat", `RW 10 FLAT "disk-flat.vmdk" 0`)),
				Ref: extent("disk-flat.vmdk", "raw")},
			{Name: "vmfs beside its data", Image: image(splitText("vmfs", `RW 10 VMFS "disk-flat.vmdk"`)), Ref: extent("disk-flat.vmdk", "raw")},
			{Name: "vmfs elsewhere", Image: image(splitText("vmfs", `RW 10 VMFS "/vmfs/volumes/a/disk-flat.vmdk"`)),
				Ref: extent("/vmfs/volumes/a/disk-flat.vmdk", "raw"), Unresolvable: true},
			{Name: "twoGbMaxExtentSparse", Image: image(splitText("twoGbMaxExtentSparse", `RW 10 SPARSE "d-s001.vmdk"`)),
				Ref: extent("d-s001.vmdk", "vmdk")},
			{Name: "delta in pieces", Image: image(bytes.Replace(splitText("twoGbMaxExtentSparse", `RW 10 ZERO`), []byte("ffffffff"), []byte("1"), 1)),
				Ref: formats.Ref{Kind: formats.RefParent, Format: "vmdk", Identity: "00000001"}},
			{Name: "monolithicFlat elsewhere", Image: image([]byte(flatText)), Ref: extent("../../etc/passwd", "raw"), Unresolvable: true},
			{Name: "descriptor as qemu knows it", Image: image([]byte("#\n\nversion=1\nRW 4 VMFSSPARSE \"x.vmdk\"\n")), Ref: extent("x.vmdk", "vmdk"), Unresolvable: true},
			{Name: "absolute path", Image: image(edited(`"disk.vmdk"`, `"/dev/sda"`)), Ref: extent("/dev/sda", "vmdk"), Unresolvable: true},
			{Name: "windows path", Image: image(edited(`"disk.vmdk"`, `"\\.\PhysicalDrive0"`)), Ref: extent(`\\.\PhysicalDrive0`, "vmdk"), Unresolvable: true},
			{Name: "json", Image: image(edited(`"disk.vmdk"`, `"json:{}"`)), Ref: extent("json:{}", "vmdk"), Unresolvable: true},
			{Name: "url", Image: image(edited(`"disk.vmdk"`, `"nbd://h/x"`)), Ref: extent("nbd://h/x", "vmdk"), Unresolvable: true},
			{Name: "second extent", Image: image(edited("\"disk.vmdk\"\n", "\"disk.vmdk\"\nRW 1 FLAT \"b\" 0\n")), Ref: extent("b", "raw"), Unresolvable: true},
			{Name: "flat extent", Image: image(edited("RDONLY 128 SPARSE", "RW 128 FLAT")), Ref: extent("disk.vmdk", "raw"), Unresolvable: true},
			{Name: "zero capacity", Image: func(*testing.T) []byte {
				b := edited("RDONLY 128 SPARSE", "RW 0 SPARSE")
				le.PutUint64(b[12:], 0)
				return b
			}, Ref: extent("disk.vmdk", "vmdk"), Unresolvable: true},
		},
	}.Run(t)
}

func TestReadsADeltaThroughItsParent(t *testing.T) {
	below := guestOf(64 << 10)
	e := engine.New(engine.Options{})
	defer e.Close()
	pb := builder{}
	parent, err := e.Open(t.Context(), vmdk.Driver(), formattest.Memory(pb.stream(below)), engine.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	above := make([]byte, 128<<10) // the parent is shorter: zeros past its end
	b := builder{grainSize: 8, zeroGrains: true, descriptor: strings.Replace(descriptorOf("monolithicSparse", 256, "d.vmdk"), "parentCID=ffffffff", "parentCID=3a1f0c2e\nparentFileNameHint=\"base.vmdk\"", 1)}
	copy(above[20<<10:], bytes.Repeat([]byte("delta"), 5000))
	image := b.sparse(above)
	table := image[b.tables[0]*sector:]
	le.PutUint32(table[4*15:], 0) // absent again, between grains of zeros: the parent's
	copy(above[15*4096:], below[15*4096:])
	d, err := e.Open(t.Context(), vmdk.Driver(), formattest.Memory(image), engine.OpenOptions{
		Parent: func(_ context.Context, ref formats.Ref) (*engine.Disk, error) {
			if ref.Kind != formats.RefParent || ref.Name != "base.vmdk" {
				return nil, fmt.Errorf("asked for %+v", ref)
			}
			return parent, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if i := firstDifference(got, above); i >= 0 {
		t.Errorf("the byte at %d differs", i)
	}
}

func TestRefusesHostileImages(t *testing.T) {
	type edit func(f []byte, b *builder) []byte
	head32 := func(off int, v uint32) edit {
		return func(f []byte, _ *builder) []byte { le.PutUint32(f[off:], v); return f }
	}
	head64 := func(off int, v uint64) edit {
		return func(f []byte, _ *builder) []byte { le.PutUint64(f[off:], v); return f }
	}
	gde := func(v func(b *builder, f []byte) int) edit {
		return func(f []byte, b *builder) []byte { le.PutUint32(f[b.gd*sector:], uint32(v(b, f))); return f }
	}
	gte := func(v func(b *builder, f []byte) int) edit {
		return func(f []byte, b *builder) []byte {
			le.PutUint32(f[b.tables[0]*sector+4*15:], uint32(v(b, f)))
			return f
		}
	}
	at := func(n int) func(*builder, []byte) int { return func(*builder, []byte) int { return n } }
	for _, c := range []struct {
		name string
		edit edit
		want error
	}{
		{"version 0", head32(4, 0), formats.ErrUnsupported},
		{"version 4", head32(4, 4), formats.ErrUnsupported},
		{"unknown flag", head32(8, 1|1<<18), formats.ErrUnsupported},
		{"unknown compression", head32(77, 2), formats.ErrUnsupported},
		{"compression without the flag", head32(77, 1), formats.ErrCorrupt},
		{"compression without markers", func(f []byte, _ *builder) []byte { f[10], f[77] = 1, 1; return f }, formats.ErrUnsupported},
		{"text-mode transfer", func(f []byte, _ *builder) []byte { copy(f[73:], "\n \n\n"); return f }, formats.ErrCorrupt},
		{"capacity overflows", head64(12, 1<<63), formats.ErrLimit},
		{"capacity of 64 TiB and a sector", head64(12, 64<<40/sector+1), formats.ErrLimit},
		{"directory larger than the file", head64(12, 1<<40/sector), formats.ErrCorrupt},
		{"directory larger than 16 MiB", head64(12, 64<<40/sector), formats.ErrLimit},
		{"grain size 0", head64(20, 0), formats.ErrCorrupt},
		{"grain size 1", head64(20, 1), formats.ErrCorrupt},
		{"grain size 100", head64(20, 100), formats.ErrCorrupt},
		{"grain size 4 MiB", head64(20, 8192), formats.ErrCorrupt},
		{"grain size overflows", head64(20, 1<<63), formats.ErrCorrupt},
		{"tables of 0 entries", head32(44, 0), formats.ErrCorrupt},
		{"tables of 513 entries", head32(44, 513), formats.ErrCorrupt},
		{"tables of 4 Gi entries", head32(44, 1<<32-1), formats.ErrCorrupt},
		{"no descriptor", head64(28, 0), formats.ErrUnsupported},
		{"descriptor of 0 sectors", head64(36, 0), formats.ErrUnsupported},
		{"descriptor over 1 MiB", head64(36, 2049), formats.ErrCorrupt},
		{"descriptor size overflows", head64(36, 1<<63), formats.ErrCorrupt},
		{"descriptor past the end", head64(28, 1<<40), formats.ErrCorrupt},
		{"descriptor place overflows", head64(28, 1<<64-1), formats.ErrCorrupt},
		{"no directory", head64(56, 0), formats.ErrCorrupt},
		{"directory past the end", head64(56, 1<<40), formats.ErrCorrupt},
		{"directory place overflows", head64(56, 1<<55), formats.ErrCorrupt},
		{"directory in the descriptor", head64(56, 3), formats.ErrCorrupt},
		{"directory in a footer that is not there", head64(56, 1<<64-1), formats.ErrCorrupt},
		{"table past the end", gde(at(1<<32 - 1)), formats.ErrCorrupt},
		{"table cut off by the end", gde(func(_ *builder, f []byte) int { return len(f)/sector - 1 }), formats.ErrCorrupt},
		{"table is the descriptor", gde(at(1)), formats.ErrCorrupt},
		{"table is the directory", gde(func(b *builder, _ []byte) int { return b.gd }), formats.ErrCorrupt},
		{"table overlaps the directory", gde(func(b *builder, _ []byte) int { return b.gd - 3 }), formats.ErrCorrupt},
		{"grain past the end", gte(at(1<<32 - 1)), formats.ErrCorrupt},
		{"grain cut off by the end", gte(func(_ *builder, f []byte) int { return len(f)/sector - 1 }), formats.ErrCorrupt},
		{"grain in the header, no zeroed grains", gte(at(1)), formats.ErrCorrupt},
		{"grain in the descriptor", gte(at(5)), formats.ErrCorrupt},
		{"grain in the directory", gte(func(b *builder, _ []byte) int { return b.gd }), formats.ErrCorrupt},
		{"grain in its table", gte(func(b *builder, _ []byte) int { return b.tables[0] + 3 }), formats.ErrCorrupt},
		{"header only", func(f []byte, _ *builder) []byte { return f[:sector] }, formats.ErrCorrupt},
		{"magic only", func(f []byte, _ *builder) []byte { return f[:4] }, formats.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, b := smallSparse()
			formattest.Refuse(t, vmdk.Driver(), c.edit(f, b), c.want)
		})
	}
}

// An uncompressed grain may begin before its table and run into it.
func TestRefusesAGrainThatRunsIntoItsTable(t *testing.T) {
	b := builder{version: 1, tableLen: 8}
	f := b.sparse(guestOf(1 << 20))
	far := len(f) / sector
	f = append(f, f[b.tables[1]*sector:][:sector]...) // the second table moves past the grains
	f = append(f, make([]byte, 1<<20)...)
	le.PutUint32(f[b.gd*sector+4:], uint32(far))
	le.PutUint32(f[far*sector+4*5:], uint32(far-20))
	formattest.Refuse(t, vmdk.Driver(), f, formats.ErrCorrupt)
}

func TestRefusesATableUsedTwice(t *testing.T) {
	b := builder{version: 1, tableLen: 8}
	f := b.sparse(guestOf(1 << 20))
	le.PutUint32(f[b.gd*sector+4:], uint32(b.tables[0]))
	formattest.Refuse(t, vmdk.Driver(), f, formats.ErrCorrupt)
}

func TestRefusesHostileStreams(t *testing.T) {
	for name, edit := range map[string]func(f []byte, b *builder) []byte{
		"footer's capacity differs":   func(f []byte, _ *builder) []byte { f[len(f)-2*sector+12]++; return f },
		"footer's descriptor differs": func(f []byte, _ *builder) []byte { f[len(f)-2*sector+28]++; return f },
		"footer's flags differ":       func(f []byte, _ *builder) []byte { f[len(f)-2*sector+8] ^= 4; return f },
		"footer leaves it to itself":  func(f []byte, _ *builder) []byte { le.PutUint64(f[len(f)-2*sector+56:], 1<<64-1); return f },
		"footer without magic":        func(f []byte, _ *builder) []byte { f[len(f)-2*sector] = 'X'; return f },
		"footer marker of other type": func(f []byte, _ *builder) []byte { f[len(f)-3*sector+12] = 2; return f },
		"no end of stream":            func(f []byte, _ *builder) []byte { f[len(f)-sector] = 1; return f },
		"cut off":                     func(f []byte, _ *builder) []byte { return f[:len(f)-sector] },
		"cut off in a sector":         func(f []byte, _ *builder) []byte { return f[:len(f)-1] },
		"bytes added":                 func(f []byte, _ *builder) []byte { return append(f, make([]byte, sector)...) },
		"marker longer than its grain": func(f []byte, b *builder) []byte {
			le.PutUint32(f[b.firstGrain*sector+8:], 1<<31)
			return f
		},
		"garbage for zlib": func(f []byte, b *builder) []byte {
			copy(f[b.firstGrain*sector+12:], "this is not compressed")
			return f
		},
		"grain that decodes to more than one": func(f []byte, b *builder) []byte {
			long := (&builder{level: 9}).appendGrain(nil, 0, make([]byte, 8*sector+1))
			copy(f[b.firstGrain*sector:], long)
			return f
		},
		"grain in the footer's last byte": func(f []byte, b *builder) []byte {
			le.PutUint32(f[b.tables[0]*sector:], uint32(len(f)/sector))
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, b := smallStream()
			formattest.Refuse(t, vmdk.Driver(), edit(f, b), formats.ErrCorrupt)
		})
	}
}

func TestRefusesDescriptorsItDoesNotUnderstand(t *testing.T) {
	for _, c := range []struct {
		name  string
		image []byte
		want  error
	}{
		{"createType vmfs", edited("monolithicSparse", "vmfs"), formats.ErrUnsupported},
		{"createType of several files", edited("monolithicSparse", "twoGbMaxExtentSparse"), formats.ErrUnsupported},
		{"no createType", edited("createType=", "madeBy="), formats.ErrUnsupported},
		{"two createTypes", edited("version=1", "createType=\"vmfs\""), formats.ErrCorrupt},
		{"two parentCIDs", edited("version=1", "ParentCID=1"), formats.ErrCorrupt},
		{"parentCID is no number", edited("parentCID=ffffffff", "parentCID=none"), formats.ErrCorrupt},
		{"parentCID overflows", edited("parentCID=ffffffff", "parentCID=1ffffffff"), formats.ErrCorrupt},
		{"no extent", edited("RDONLY 128", "# RDONLY 128"), formats.ErrCorrupt},
		{"extent larger than the disk", edited("RDONLY 128", "RDONLY 129"), formats.ErrCorrupt},
		{"negative extent", edited("RDONLY 128", "RDONLY -1"), formats.ErrCorrupt},
		{"extent size overflows", edited("RDONLY 128", "RDONLY 9223372036854775807"), formats.ErrLimit},
		{"extent without end", edited(`"disk.vmdk"`, `"disk.vmdk`), formats.ErrCorrupt},
		{"unknown line", edited("version=1", "run this"), formats.ErrCorrupt},
		{"not UTF-8", edited("disk.vmdk", "\xb4\xc5\xc5\xcc.vmdk"), formats.ErrUnsupported},
		{"empty", described("\x00"), formats.ErrUnsupported},
		{"many extents", edited("RDONLY 128", strings.Repeat("RW 1 ZERO\n", 500)+"RDONLY 128"), formats.ErrReference},
		{"text file over 1 MiB", append([]byte(flatText), bytes.Repeat([]byte("#\n"), 1<<19)...), formats.ErrCorrupt},
		{"text file of 5000 extents", append([]byte(flatText), bytes.Repeat([]byte("RW 1 FLAT \"x\" 0\n"), 5000)...), formats.ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) { formattest.Refuse(t, vmdk.Driver(), c.image, c.want) })
	}
}

func TestAcceptsDescriptorsAsToolsWriteThem(t *testing.T) {
	for name, image := range map[string][]byte{
		"CRLF":                    described(strings.ReplaceAll(descriptorOf("monolithicSparse", 128, "disk.vmdk"), "\n", "\r\n")),
		"spaces and lower case":   edited("createType=", "createtype = "),
		"name with spaces and 中文": edited("disk.vmdk", "đĩa 磁盘 1.vmdk"),
		"changed block tracking":  edited("version=1", "version=3\nencoding=\"UTF-8\"\nisNativeSnapshot=\"no\"\nchangeTrackPath=\"disk-ctk.vmdk\""),
		"rest after NUL":          edited("ddb.virtualHWVersion = \"4\"\n", "\x00\xffold text"),
	} {
		t.Run(name, func(t *testing.T) {
			if i := firstDifference(readAll(t, formattest.Memory(image)), guestOf(64<<10)); i >= 0 {
				t.Errorf("the byte at %d differs", i)
			}
		})
	}
}

func TestRefusesOtherKindsByName(t *testing.T) {
	cowd := make([]byte, 2048)
	copy(cowd, "COWD\x01\x00\x00\x00")
	le.PutUint32(cowd[12:], 2048)
	se := make([]byte, 4096)
	le.PutUint64(se, 0xcafebabe)
	le.PutUint64(se[8:], 0x2_0000_0001)
	le.PutUint64(se[16:], 2048)
	for name, image := range map[string][]byte{"COWD": cowd, "SESparse": se} {
		if !vmdk.Driver().Probe(image) {
			t.Errorf("%s is not recognised", name)
		}
		info, err := vmdk.Driver().Inspect(t.Context(), formattest.Memory(image))
		if err != nil || info.Variant != name || info.VirtualSize != 1<<20 || !errors.Is(info.Refused, formats.ErrUnsupported) || !strings.Contains(info.Refused.Error(), name) {
			t.Errorf("%s: %+v, refused %v, %v", name, info, info.Refused, err)
		}
	}
}

// The flat disk that qemu-img makes: two files, the uploaded one is the text.
func TestRefusesTheDescriptorsOfQemu(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	for _, subformat := range []string{"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"} {
		path := filepath.Join(t.TempDir(), "disk.vmdk")
		testbed.Run(t, "qemu-img", "create", "-f", "vmdk", "-o", "subformat="+subformat, path, "3G")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := vmdk.Driver().Inspect(t.Context(), formattest.Memory(text))
		if err != nil || !errors.Is(info.Refused, formats.ErrReference) || info.Variant != subformat || info.VirtualSize != 3<<30 || len(info.Refs) == 0 {
			t.Errorf("%s: %+v, refused %v, %v", subformat, info, info.Refused, err)
		}
	}
	// A piece of a split disk has no descriptor of its own.
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	testbed.Run(t, "qemu-img", "create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", path, "10M")
	piece, err := os.ReadFile(strings.TrimSuffix(path, ".vmdk") + "-s001.vmdk")
	if err != nil {
		t.Fatal(err)
	}
	formattest.Refuse(t, vmdk.Driver(), piece, formats.ErrUnsupported)
	// A delta that qemu-img makes.
	dir := t.TempDir()
	testbed.Run(t, "qemu-img", "create", "-f", "vmdk", filepath.Join(dir, "base.vmdk"), "1M")
	testbed.Run(t, "qemu-img", "create", "-f", "vmdk", "-b", filepath.Join(dir, "base.vmdk"), "-F", "vmdk", filepath.Join(dir, "top.vmdk"))
	top, err := os.ReadFile(filepath.Join(dir, "top.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	base, err := vmdk.Driver().Inspect(t.Context(), formattest.OpenFile(t, filepath.Join(dir, "base.vmdk")))
	if err != nil || len(base.Identity) != 8 {
		t.Fatalf("the parent's identity is %q, %v", base.Identity, err)
	}
	info, err := vmdk.Driver().Inspect(t.Context(), formattest.Memory(top))
	want := []formats.Ref{{Kind: formats.RefParent, Name: filepath.Join(dir, "base.vmdk"), Format: "vmdk", Identity: base.Identity}}
	if err != nil || !errors.Is(info.Refused, formats.ErrReference) || !slices.Equal(info.Refs, want) {
		t.Errorf("delta: %+v, refused %v, %v", info, info.Refused, err)
	}
}
