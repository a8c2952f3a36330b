package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"hash/crc32"

	"glanced/formats"
)

// xzZeros and bzip2Zeros are 2 MiB and 4 MiB of zeros, by `xz -9 -C crc32` and
// `bzip2 -9`: the standard library writes neither.
const (
	xzZeros = `
/Td6WFoAAAFpIt42AgAhARwAAAAQz1jM//8RAWxdAABv/f//o7f/Rz5IFXI5YVG4kijmo4YH+e7k
HoLTL8U6PAFLsX7JiopNL6MN2X+m44wjEVPgWRjFdYrid/i2lH8MasDedElk4ulcU7IE2PdEDKtf
DW1G6eXDdoi3llestk3haR1v+0uIEGxCy4g/XACP0E6vJiiUcR89jyThcJ6nI1/sKMuF0ZWYin4q
kfIndfcZwAaYTZj92K/VkA/EJVP49ZE2MQWlsO5vwXBNRwzRkRGqrWAdus6xJxhcWYbpZlJYvul2
rFnk5VsFCPnH2q38+1IrdM0eWyBC+d1TPfgpZAk7gMsqbN+1O/DEvS5fqg8+S2ZCkBMO/xCT+HF4
WfgLzf+VKEYPqfx83vuaMC5WwI+F84OBwGXEJVP49ZE2MQWlsO5vwXBNRwzRkRGqrWAdus6xJxhc
WYbpZlJYvul2rFnk5VsFCPnH2q38+1IrdM0eWyBC+d1TPfgpZAk7gMsqbN+1O/DEvEgn5liAAO0A
BQAcpiTxAAAAfoeJjQABjwOAgIABZg37Kz4wDYsCAAAAAAFZWg==`
	bzip2Zeros = "QlpoOTFBWSZTWVYC4ogAICBIAMAAAAQACCAAMMwFKaYCAbECAeLuSKcKEgrAXFEA"
)

func decoded(text string) []byte {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err) // the text is one of ours
	}
	return b
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // the level is a good one
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// zstdBomb is a frame of n blocks of 128 KiB of the same byte, with this window
// descriptor. Each block takes 4 bytes.
func zstdBomb(window byte, n int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	for i := range n {
		h := uint32(1<<1 | 128<<10<<3)
		if i == n-1 {
			h |= 1
		}
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 'x')
	}
	return b
}

// xzDictionary is xz, of a block header of 12 bytes, with another dictionary size.
func xzDictionary(xz []byte, size byte) []byte {
	b := bytes.Clone(xz)
	header := b[12:24] // size, flags, filter id, size of properties, properties, padding, CRC32
	header[4] = size
	le.PutUint32(header[8:], crc32.ChecksumIEEE(header[:8]))
	return b
}

func compressedImages() []Image {
	m := &maker{format: "qcow2", container: "compressed"}
	corrupt, limit, format := formats.ErrCorrupt, formats.ErrLimit, formats.ErrFormat
	xz, bzip := decoded(xzZeros), decoded(bzip2Zeros)

	m.add(Amplification, "a bomb of zstd", limit, Open, zstdBomb(0x50, 40_000))
	m.add(Amplification, "a bomb of zstd with a window of 128 MiB", limit, Open, zstdBomb(0x88, 40_000))
	m.add(Amplification, "a bomb of xz", limit, Open, bytes.Repeat(xz, 300))
	m.add(Amplification, "a bomb of bzip2", limit, Open, bytes.Repeat(bzip, 200))
	m.add(Amplification, "a bomb of gzip", limit, Open, bytes.Repeat(gzipped(make([]byte, 8<<20)), 20))
	m.add(Amplification, "a bomb in a bomb", format, Open, gzipped(zstdBomb(0x50, 40_000)))
	m.add(Streams, "zstd with a window of 3.75 TiB", limit, Open, zstdBomb(0xff, 10))
	m.add(Streams, "zstd with a window of 256 MiB", limit, Open, zstdBomb(0x90, 10))
	m.add(Streams, "xz with a dictionary of 4 GiB", limit, Open, xzDictionary(xz, 40))
	m.add(Streams, "zstd that needs a dictionary", formats.ErrUnsupported, Open,
		[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x50, 0x77, 0x09, 0x00, 0x00})
	m.add(Streams, "endless frames without content", format, Open, bytes.Repeat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), 100_000))
	m.add(Streams, "endless frames without content behind a first one", format, Open,
		append(zstdBomb(0x50, 1), bytes.Repeat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), 100_000)...))
	for name, b := range map[string][]byte{"gzip": gzipped(qcow2()), "xz": xz, "bzip2": bzip, "zstd": zstdBomb(0x50, 10)} {
		m.add(Streams, name+" that is cut off", corrupt, Open, b[:len(b)-7])
		m.add(Streams, name+" with noise behind it", corrupt, Open, append(bytes.Clone(b), "\xff\x00\xa5\x00 and more"...))
	}
	b := gzipped(qcow2())
	b[len(b)-8]++
	m.add(Streams, "gzip with a wrong checksum", corrupt, Open, b)
	m.add(Names, "a file name in gzip", formats.ErrReference, Open, gzipNamed("../../../../etc/passwd", qcow2Backing(qcow2(), "/etc/passwd")))
	m.add(Chain, "its own backing file, inside", formats.ErrReference, Open, gzipped(qcow2Backing(qcow2(), "hostile.img")))
	m.add(Entries, "a cluster past the end, inside", corrupt, Map, gzipped(qcow2Past()))
	m.add(Disguise, "a vmdk inside that is declared a qcow2", format, Open, gzipped(vmdkPlain()))
	m.add(Disguise, "an archive inside", format, Open, gzipped(pack(member{name: "disk.qcow2", content: string(qcow2())})))
	return m.images
}

func gzipNamed(name string, content []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Name = name
	w.Write(content)
	w.Close()
	return out.Bytes()
}

func qcow2Past() []byte {
	b := qcow2()
	be.PutUint64(b[qL2:], 1<<40)
	return b
}
