package hostile

import (
	"crypto/md5"
	"math"

	"glanced/formats"
)

// Fields of the Parallels header (QEMU's docs/interop/parallels.rst).
const (
	pVersion, pTracks, pEntries, pSectors, pInUse, pDataOff, pFlags, pExtension = 16, 28, 32, 36, 44, 48, 52, 56

	pBAT, pData, pCluster = 64, 4 << 10, 4 << 10
)

// parallels is a disk of 16 KiB in clusters of 4 KiB, of which the first is there;
// of the second version, in units of clusters.
func parallels(v2 bool) []byte {
	b := make([]byte, pData+pCluster)
	copy(b, "WithoutFreeSpace")
	first := uint32(pData / sector)
	if v2 {
		copy(b, "WithouFreSpacExt")
		first = 1
	}
	le.PutUint32(b[pVersion:], 2)
	le.PutUint32(b[20:], 16)
	le.PutUint32(b[pTracks:], pCluster/sector)
	le.PutUint32(b[pEntries:], 4)
	le.PutUint64(b[pSectors:], 32)
	le.PutUint32(b[pInUse:], 0x312e3276)
	le.PutUint32(b[pDataOff:], pData/sector)
	le.PutUint32(b[pBAT:], first)
	for i := range pCluster {
		b[pData+i] = byte(i)>>1 | 1
	}
	return b
}

func parallelsImages() []Image {
	m := &maker{format: "ploop", container: "bare"}
	corrupt, limit, unsupported := formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported
	for _, v2 := range []bool{false, true} {
		suffix := ""
		if v2 {
			suffix = ", version 2"
		}
		edit := func(class Class, name string, want error, step Step, changes ...func(b []byte)) {
			b := parallels(v2)
			for _, change := range changes {
				change(b)
			}
			m.add(class, name+suffix, want, step, b)
		}
		edit(Sizes, "4 billion entries", corrupt, Open, put32(pEntries, math.MaxUint32))
		edit(Sizes, "a BAT longer than the file", corrupt, Open, put32(pEntries, 1<<20))
		edit(Sizes, "more disk than clusters", corrupt, Open, put64(pSectors, 33))
		edit(Sizes, "data past the end", corrupt, Map, put32(pDataOff, math.MaxUint32&^7))
		edit(Sizes, "an extension past the end", corrupt, Open, put64(pExtension, 1<<20))
		edit(Sizes, "an extension whose place overflows", corrupt, Open, put64(pExtension, 1<<55))
		edit(Clusters, "clusters of no sectors", corrupt, Open, put32(pTracks, 0))
		edit(Clusters, "clusters of 2 TiB", corrupt, Open, put32(pTracks, math.MaxUint32))
		edit(Clusters, "clusters of 2 GiB", corrupt, Open, put32(pTracks, 1<<22))
		edit(Entries, "header version 3", unsupported, Open, put32(pVersion, 3))
		edit(Entries, "an unknown flag", unsupported, Open, put32(pFlags, 1<<31))
		edit(Entries, "still in use", corrupt, Open, put32(pInUse, 0x746f6e59))
		edit(Entries, "a cluster past the end", corrupt, Map, put32(pBAT, 1<<20))
		edit(Entries, "the farthest cluster", corrupt, Map, put32(pBAT, math.MaxUint32))
		edit(Entries, "an extension that is data", corrupt, Open, put64(pExtension, pData/sector))
		b := parallels(v2)
		m.add(Entries, "a cluster that is cut off"+suffix, corrupt, Map, append(b[:len(b)-sector], b[:0]...))
		le.PutUint32(b[pBAT+4:], le.Uint32(b[pBAT:]))
		m.add(Aliasing, "two clusters in one"+suffix, nil, Open, b)

		const entries = 1 << 20
		units := uint32((pBAT + 4*entries + pCluster - 1) / pCluster)
		b = make([]byte, int(units+1)*pCluster)
		copy(b, parallels(v2)[:pBAT])
		le.PutUint32(b[pEntries:], entries)
		le.PutUint64(b[pSectors:], entries*pCluster/sector)
		le.PutUint32(b[pDataOff:], units*pCluster/sector)
		if !v2 {
			units *= pCluster / sector
		}
		for i := range entries {
			if i%2 == 0 {
				le.PutUint32(b[pBAT+4*i:], units)
			}
		}
		b[len(b)-pCluster] = 1
		m.add(Time, "a disk of 4 GiB, every other cluster in one"+suffix, nil, Open, b)
	}
	b := parallels(false)
	copy(b[pBAT:], "\x01\x00\x00\x00")
	m.add(Entries, "a cluster over the header", corrupt, Map, b)
	b = parallels(false)
	le.PutUint32(b[pTracks:], 32<<10+1)
	le.PutUint32(b[pBAT:], 0)
	le.PutUint64(b[pExtension:], pData/sector)
	m.addFile(Sizes, "an extension of more than 16 MiB", limit, Open, holed(b, 17<<20))
	b = parallels(true)
	le.PutUint64(b[pExtension:], 2*pData/sector)
	ext := make([]byte, pCluster)
	le.PutUint64(ext, 0xab234cef23dcea87)
	le.PutUint64(ext[24:], 0x20385fae252cb34a)
	le.PutUint32(ext[24+16:], math.MaxUint32)
	sum := md5.Sum(ext[24:])
	copy(ext[8:], sum[:])
	m.add(Sizes, "a bitmap of 4 GiB in the extension", corrupt, Open, append(b, ext...))
	return m.images
}
