package hostile

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"math"
	"strings"

	"glanced/formats"
)

// Fields of the hosted sparse extent header ("Hosted Sparse Extent Header" in
// VMware's Virtual Disk Format 5.0), and where vmdk puts things, in sectors.
const (
	vVersion, vFlags, vCapacity, vGrain, vDescriptorOff, vDescriptorSize = 4, 8, 12, 20, 28, 36
	vTableLen, vRGD, vGD, vNewlines, vCompression                        = 44, 48, 56, 73, 77

	vGDAt, vTableAt, vGrainAt = 21, 22, 26
	vGrains                   = 8 // of 4 KiB
)

func vmdkText(createType, extents, more string) string {
	return fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=3a1f0c2e\nparentCID=ffffffff\ncreateType=\"%s\"\n%s\n\n"+
		"# Extent description\n%s\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n", createType, more, extents)
}

// vmdk is a disk of 32 KiB as monolithicSparse, of which the first two grains are there.
func vmdk(text string) []byte {
	b := make([]byte, (vGrainAt+16)*sector)
	copy(b, "KDMV")
	le.PutUint32(b[vVersion:], 1)
	le.PutUint32(b[vFlags:], 1)
	le.PutUint64(b[vCapacity:], vGrains*8)
	le.PutUint64(b[vGrain:], 8)
	le.PutUint64(b[vDescriptorOff:], 1)
	le.PutUint64(b[vDescriptorSize:], 20)
	le.PutUint32(b[vTableLen:], 512)
	le.PutUint64(b[vGD:], vGDAt)
	copy(b[vNewlines:], "\n \r\n")
	copy(b[sector:vGDAt*sector], text)
	le.PutUint32(b[vGDAt*sector:], vTableAt)
	le.PutUint32(b[vTableAt*sector:], vGrainAt)
	le.PutUint32(b[vTableAt*sector+4:], vGrainAt+8)
	copy(b[vGrainAt*sector:], bytes.Repeat([]byte("guest data. "), 600))
	return b
}

func vmdkPlain() []byte { return vmdk(vmdkText("monolithicSparse", `RW 64 SPARSE "disk.vmdk"`, "")) }

// vmdkStream is the same with compressed grains, of which packed is the first
// one's zlib stream.
func vmdkStream(packed []byte) []byte {
	b := vmdk(vmdkText("streamOptimized", `RW 64 SPARSE "disk.vmdk"`, ""))
	le.PutUint32(b[vVersion:], 3)
	le.PutUint32(b[vFlags:], 1|1<<16|1<<17)
	le.PutUint16(b[vCompression:], 1)
	le.PutUint32(b[vTableAt*sector+4:], 0)
	b = b[:vGrainAt*sector]
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, uint32(len(packed)))
	b = append(b, packed...)
	return append(b, make([]byte, -len(b)&(sector-1))...)
}

func zlibbed(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func vmdkImages() []Image {
	m := &maker{format: "vmdk", container: "bare"}
	corrupt, limit, unsupported := formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported
	edit := func(class Class, name string, want error, step Step, changes ...func(b []byte)) {
		b := vmdkPlain()
		for _, change := range changes {
			change(b)
		}
		m.add(class, name, want, step, b)
	}
	text := func(class Class, name string, want error, text string) { m.add(class, name, want, Open, []byte(text)) }

	m.add(Chain, "its own parent", formats.ErrReference, Open,
		[]byte(strings.Replace(string(vmdk(vmdkText("monolithicSparse", `RW 64 SPARSE "disk.vmdk"`, `parentFileNameHint="hostile.img"`))), "parentCID=ffffffff", "parentCID=3a1f0c2e", 1)))
	text(Chain, "an extent that is the descriptor itself", formats.ErrReference, vmdkText("twoGbMaxExtentSparse", `RW 64 SPARSE "hostile.img"`, ""))

	edit(Sizes, "a capacity that overflows", limit, Open, put64(vCapacity, 1<<63))
	edit(Sizes, "the largest capacity", limit, Open, put64(vCapacity, math.MaxUint64))
	edit(Sizes, "a directory of 32 MiB", limit, Open, put64(vCapacity, 64<<40/sector))
	edit(Sizes, "a directory longer than the file", corrupt, Open, put64(vCapacity, 1<<40/sector))
	edit(Sizes, "a directory past the end", corrupt, Open, put64(vGD, 1<<40))
	edit(Sizes, "a directory whose place overflows", corrupt, Open, put64(vGD, 1<<55))
	edit(Sizes, "a descriptor of 8 ZiB", corrupt, Open, put64(vDescriptorSize, math.MaxUint64))
	edit(Sizes, "a descriptor of 2 MiB", corrupt, Open, put64(vDescriptorSize, 4096))
	edit(Sizes, "a descriptor past the end", corrupt, Open, put64(vDescriptorOff, 1<<40))
	edit(Sizes, "no directory but the redundant one", corrupt, Open, put32(vFlags, 1|1<<1), put64(vGD, 0), put64(vRGD, vGDAt))
	edit(Sizes, "a footer that is not there", corrupt, Open, put64(vGD, math.MaxUint64))
	text(Sizes, "extents of 8 EiB", limit, vmdkText("twoGbMaxExtentSparse", strings.Repeat("RW 9223372036854775807 SPARSE \"a.vmdk\"\n", 3), ""))
	text(Sizes, "ten thousand extents", limit, vmdkText("twoGbMaxExtentSparse", strings.Repeat("RW 1 SPARSE \"a.vmdk\"\n", 10_000), ""))
	m.addFile(Sizes, "a descriptor file of 64 MiB", corrupt, Open, holed([]byte(vmdkText("monolithicFlat", `RW 64 ZERO`, "")), 64<<20))

	for _, n := range []uint64{0, 1, 7, 100, 8192, 1 << 31, 1 << 63, math.MaxUint64} {
		edit(Clusters, fmt.Sprintf("grains of %d sectors", n), corrupt, Open, put64(vGrain, n))
	}
	edit(Clusters, "tables of no entries", corrupt, Open, put32(vTableLen, 0))
	edit(Clusters, "tables of 4 billion entries", corrupt, Open, put32(vTableLen, math.MaxUint32))

	edit(Entries, "version 4", unsupported, Open, put32(vVersion, 4))
	edit(Entries, "an unknown flag", unsupported, Open, put32(vFlags, 1|1<<30))
	edit(Entries, "an unknown compression", unsupported, Open, func(b []byte) { b[vCompression] = 7 })
	edit(Entries, "a table past the end", corrupt, Map, put32(vGDAt*sector, 1<<31))
	edit(Entries, "a table in the header", corrupt, Map, put32(vGDAt*sector, 1))
	edit(Entries, "a grain past the end", corrupt, Map, put32(vTableAt*sector, 1<<31))
	edit(Entries, "a grain in its table", corrupt, Map, put32(vTableAt*sector, vTableAt))
	edit(Entries, "a grain of zeros where there are none", corrupt, Map, put32(vTableAt*sector, 1))
	edit(Entries, "a descriptor that is no text", unsupported, Open, func(b []byte) { copy(b[sector:], "\xff\xfe\xfd") })

	edit(Aliasing, "a table that is the directory", corrupt, Map, put32(vGDAt*sector, vGDAt))
	edit(Aliasing, "a table used for all of a disk", corrupt, Map, put64(vCapacity, 2*512*8), put32(vGDAt*sector+4, vTableAt))
	edit(Aliasing, "all grains in one", nil, Open, func(b []byte) {
		for i := range vGrains {
			le.PutUint32(b[vTableAt*sector+4*i:], vGrainAt)
		}
	})

	stream := func(class Class, name string, packed []byte) { m.add(class, name, corrupt, Read, vmdkStream(packed)) }
	grain := zlibbed(bytes.Repeat([]byte{'x'}, 8*sector))
	stream(Streams, "zlib of noise", bytes.Repeat([]byte("\xff\x00\xa5"), 300))
	stream(Streams, "zlib that is too short", zlibbed([]byte("short")))
	stream(Streams, "zlib that is cut off", grain[:len(grain)-6])
	stream(Streams, "a wrong checksum", append(bytes.Clone(grain[:len(grain)-1]), grain[len(grain)-1]+1))
	stream(Streams, "zlib of 16 MiB for one grain", zlibbed(make([]byte, 16<<20)))
	stream(Streams, "zlib of nothing", nil)
	b := vmdkStream(grain)
	le.PutUint32(b[vGrainAt*sector+8:], math.MaxUint32)
	m.add(Streams, "a marker of 4 GiB", corrupt, Read, b)

	m.add(Amplification, "1 GiB from one compressed grain", nil, Open, vmdkAmplified(512))
	m.add(Time, "a directory of two million tables that are not there", nil, Open, vmdkEmpty(2<<20))
	return m.images
}

// vmdkAmplified is a disk of n grains of 2 MiB, all of them the same 2 KiB. (That
// the marker says another grain's number is not looked at by any reader.)
func vmdkAmplified(n int) []byte {
	packed := zlibbed(make([]byte, 2<<20))
	b := vmdkStream(packed)
	copy(b[sector:vGDAt*sector], make([]byte, 20*sector))
	copy(b[sector:], vmdkText("streamOptimized", fmt.Sprintf(`RW %d SPARSE "disk.vmdk"`, n*4096), ""))
	le.PutUint64(b[vCapacity:], uint64(n)*4096)
	le.PutUint64(b[vGrain:], 4096)
	for i := range n {
		le.PutUint32(b[vTableAt*sector+4*i:], vGrainAt)
	}
	return b
}

// vmdkEmpty is a disk of n grain tables of 2 MiB each, none of which is there.
func vmdkEmpty(n int) []byte {
	b := vmdkPlain()
	le.PutUint64(b[vCapacity:], uint64(n)*512*8)
	le.PutUint64(b[vGD:], uint64(len(b)/sector))
	return append(b, make([]byte, 4*n)...)
}

var vmdkPlaces = []place{
	{"vmdk", "bare", "the extent of a sparse disk", formats.ErrReference, func(name string) []byte {
		b := vmdk(vmdkText("monolithicSparse", fmt.Sprintf(`RW 64 FLAT "%s" 0`, unquoted(name)), ""))
		return b
	}},
	{"vmdk", "bare", "a disk of no sectors that leaves it to its descriptor", formats.ErrReference, func(name string) []byte {
		b := vmdk(vmdkText("monolithicSparse", fmt.Sprintf(`RW 0 SPARSE "%s"`, unquoted(name)), ""))
		le.PutUint64(b[vCapacity:], 0)
		return b
	}},
	{"vmdk", "bare", "the second extent", formats.ErrReference, func(name string) []byte {
		return vmdk(vmdkText("monolithicSparse", "RW 64 SPARSE \"disk.vmdk\"\n"+fmt.Sprintf(`RW 64 FLAT "%s" 0`, unquoted(name)), ""))
	}},
	{"vmdk", "bare", "the extent of a flat disk", formats.ErrReference, func(name string) []byte {
		return []byte(vmdkText("monolithicFlat", fmt.Sprintf(`RW 64 FLAT "%s" 0`, unquoted(name)), ""))
	}},
	{"vmdk", "bare", "the extent of a flat disk of ESX", formats.ErrReference, func(name string) []byte {
		return []byte(vmdkText("vmfs", fmt.Sprintf(`RW 64 VMFS "%s"`, unquoted(name)), ""))
	}},
	{"vmdk", "bare", "one of the extents of a split disk", formats.ErrReference, func(name string) []byte {
		return []byte(vmdkText("twoGbMaxExtentSparse", fmt.Sprintf("RW 64 SPARSE \"a-s001.vmdk\"\nRW 64 SPARSE \"%s\"", unquoted(name)), ""))
	}},
	{"vmdk", "bare", "a raw device", formats.ErrReference, func(name string) []byte {
		return []byte(vmdkText("fullDevice", fmt.Sprintf(`RW 64 FLAT "%s" 0`, unquoted(name)), ""))
	}},
	{"vmdk", "bare", "a raw device mapping", formats.ErrReference, func(name string) []byte {
		return []byte(vmdkText("vmfsRawDeviceMap", fmt.Sprintf(`RW 64 VMFSRDM "%s"`, unquoted(name)), ""))
	}},
	{"vmdk", "bare", "the parent of a delta", formats.ErrReference, func(name string) []byte {
		return vmdk(vmdkText("monolithicSparse", `RW 64 SPARSE "disk.vmdk"`, `parentFileNameHint="`+unquoted(name)+`"`))
	}},
}

// unquoted is name without what ends a name in a vmdk descriptor.
func unquoted(name string) string { return strings.ReplaceAll(name, `"`, `'`) }
