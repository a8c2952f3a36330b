package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// codecs lists each codec with a coder of the tests' own.
var codecs = []struct {
	name string
	code func(plain []byte) []byte
	dec  func(d *Decoder, dst, src []byte) error
}{
	{"deflate", deflated, (*Decoder).deflate},
	{"zlib", zlibbed, (*Decoder).zlib},
	{"zstd", zstdded, (*Decoder).zstd},
	{"vmdk-grain", grain, (*Decoder).VMDKGrain},
	{"vmdk-last-grain", grain, (*Decoder).VMDKLastGrain},
}

func (d *Decoder) deflate(dst, src []byte) error { return d.Deflate(dst, src) }
func (d *Decoder) zlib(dst, src []byte) error    { return d.Zlib(dst, src) }
func (d *Decoder) zstd(dst, src []byte) error    { return d.Zstd(dst, src) }

func deflated(plain []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 6)
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func zlibbed(plain []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func zstdded(plain []byte) []byte {
	w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return w.EncodeAll(plain, nil)
}

func grain(plain []byte) []byte {
	z := zlibbed(plain)
	b := make([]byte, grainHeader, grainHeader+len(z))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(z)))
	return append(b, z...)
}

// text is n bytes that compress to about a third.
func text(seed int64, n int) []byte {
	r := rand.New(rand.NewSource(seed))
	words := make([][]byte, 200)
	for i := range words {
		words[i] = make([]byte, 1+r.Intn(12))
		r.Read(words[i])
	}
	var b []byte
	for len(b) < n {
		b = append(b, words[r.Intn(len(words))]...)
	}
	return b[:n]
}

func TestDecodesWhatWasCoded(t *testing.T) {
	noise := make([]byte, 64<<10)
	rand.New(rand.NewSource(1)).Read(noise)
	plains := map[string][]byte{
		"text": text(1, 64<<10), "zeros": make([]byte, 64<<10), "noise": noise,
		"2 MiB": text(2, 2<<20), "one byte": {7}, "odd": text(3, 12345),
	}
	var d Decoder
	defer d.Close()
	for _, c := range codecs {
		for name, plain := range plains {
			coded := c.code(plain)
			// The next cluster's bytes follow in the same sector, or padding.
			for what, tail := range map[string][]byte{"nothing": nil, "zeros": make([]byte, 511), "the next cluster": coded, "noise": noise[:300]} {
				dst := make([]byte, len(plain))
				if err := c.dec(&d, dst, append(bytes.Clone(coded), tail...)); err != nil {
					t.Errorf("%s, %s, then %s: %v", c.name, name, what, err)
				} else if !bytes.Equal(dst, plain) {
					t.Errorf("%s, %s, then %s: decoded to other bytes", c.name, name, what)
				}
			}
		}
	}
}

func TestWrongSizesAreCorruptAndNothingIsWrittenPastTheBuffer(t *testing.T) {
	plain := text(4, 64<<10)
	var d Decoder
	defer d.Close()
	for _, c := range codecs {
		coded := c.code(plain)
		for _, size := range []int{1, 100, 32 << 10, 64<<10 - 1, 64<<10 + 1, 128 << 10} {
			guarded := bytes.Repeat([]byte{0xA5}, size+4096)
			err := c.dec(&d, guarded[:size:size], coded)
			if c.name == "vmdk-last-grain" && size < len(plain) { // clipped
				if err != nil || !bytes.Equal(guarded[:size], plain[:size]) {
					t.Errorf("a grain of %d bytes for the last %d of the disk: %v", len(plain), size, err)
				}
			} else if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s of %d bytes into %d: %v, want ErrCorrupt", c.name, len(plain), size, err)
			}
			for i, b := range guarded[size:] {
				if b != 0xA5 {
					t.Fatalf("%s: byte %d past a buffer of %d was written", c.name, i, size)
				}
			}
		}
		for _, cut := range []int{0, 1, 5, len(coded) / 2, len(coded) - 1} {
			if err := c.dec(&d, make([]byte, len(plain)), coded[:cut]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut after %d bytes: %v, want ErrCorrupt", c.name, cut, err)
			}
		}
		// A decoder that failed decodes the next cluster.
		dst := make([]byte, len(plain))
		if err := c.dec(&d, dst, coded); err != nil || !bytes.Equal(dst, plain) {
			t.Errorf("%s after failures: %v", c.name, err)
		}
	}
}

func TestZlibChecksumIsChecked(t *testing.T) {
	plain := text(5, 4096)
	for name, code := range map[string]func([]byte) []byte{"zlib": zlibbed, "vmdk-last-grain": grain} {
		coded := code(plain)
		coded[len(coded)-1] ^= 1
		var d Decoder
		dec := d.Zlib
		if name == "vmdk-last-grain" {
			dec = d.VMDKLastGrain
		}
		for _, size := range []int{4096, 512} { // whole, clipped
			if err := dec(make([]byte, size), coded); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s with a wrong checksum into %d bytes: %v", name, size, err)
			}
		}
		d.Close()
	}
}

func TestZstdFramesInARow(t *testing.T) {
	plain := text(6, 64<<10)
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}, "abc"...)
	coded := append(bytes.Clone(skippable), zstdded(plain[:1000])...)
	coded = append(append(coded, zstdded(plain[1000:])...), make([]byte, 100)...)
	var d Decoder
	defer d.Close()
	dst := make([]byte, len(plain))
	if err := d.Zstd(dst, coded); err != nil || !bytes.Equal(dst, plain) {
		t.Fatalf("two frames after a skippable one: %v", err)
	}
}

// A frame that asks for a window of 3.75 TiB (the format's most) costs nothing.
func TestHostileZstdWindowIsRefusedWithoutMemory(t *testing.T) {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1<<0 | 1<<1 | 64<<3&0xff, 64 << 3 >> 8, 0, 'x'}
	var d Decoder
	defer d.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	dst := make([]byte, 1<<20)
	if err := d.Zstd(dst, frame); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("want ErrCorrupt, got %v", err)
	}
	runtime.ReadMemStats(&after)
	if grew := after.TotalAlloc - before.TotalAlloc; grew > 16<<20 {
		t.Fatalf("%d bytes were allocated", grew)
	}
}

// FuzzDecode feeds every codec anything. What decodes must be the same again
// from the same decoder, and nothing is written past the buffer.
func FuzzDecode(f *testing.F) {
	for _, plain := range [][]byte{text(1, 5000), make([]byte, 4096), {1}} {
		for i, c := range codecs {
			f.Add(uint8(i), uint32(len(plain)), c.code(plain))
		}
	}
	var d Decoder
	f.Fuzz(func(t *testing.T, which uint8, size uint32, src []byte) {
		c := codecs[int(which)%len(codecs)]
		n := int(size%(256<<10)) + 1
		guarded := make([]byte, n+64)
		err := c.dec(&d, guarded[:n:n], src)
		if !bytes.Equal(guarded[n:], make([]byte, 64)) {
			t.Fatal("written past the buffer")
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v is not ErrCorrupt", err)
			}
			return
		}
		again := make([]byte, n)
		if err := c.dec(&d, again, src); err != nil || !bytes.Equal(again, guarded[:n]) {
			t.Fatalf("the second time: %v", err)
		}
	})
}

// programs is the Go tree's own programs.
func programs(b *testing.B) []byte {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("no Go tree to take clusters from: ", err)
	}
	names, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "bin", "*"))
	if len(names) == 0 {
		b.Skip("no Go tree to take clusters from")
	}
	var plain []byte
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		plain = append(plain, data...)
	}
	return plain
}

// BenchmarkDecode decodes 64 KiB clusters of the Go tree's own programs.
func BenchmarkDecode(b *testing.B) {
	const cluster = 64 << 10
	plain := programs(b)
	for _, c := range codecs {
		var coded [][]byte
		for i := 0; i+cluster <= min(len(plain), 16<<20); i += cluster {
			coded = append(coded, c.code(plain[i:i+cluster]))
		}
		b.Run(fmt.Sprintf("%s/%s", Libraries, c.name), func(b *testing.B) {
			var d Decoder
			defer d.Close()
			dst := make([]byte, cluster)
			b.SetBytes(cluster)
			for i := range b.N {
				if err := c.dec(&d, dst, coded[i%len(coded)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
