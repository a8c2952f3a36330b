package codec

import (
	"bytes"
	"errors"
	"math/rand"
	"testing"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"
)

// deflateStreams are raw deflate streams of several shapes, by name.
func deflateStreams(t testing.TB) map[string][]byte {
	noise := make([]byte, 10<<10)
	rand.New(rand.NewSource(1)).Read(noise)
	plains := map[string][]byte{
		"text": text(1, 10<<10), "zeros": make([]byte, 10<<10), "noise": noise, "period 3": bytes.Repeat([]byte("abc"), 3000),
		"mixed": append(append(append(text(2, 3000), noise[:3000]...), make([]byte, 3000)...), text(3, 1000)...),
		"one":   {7}, "two": {7, 8},
	}
	streams := make(map[string][]byte)
	for name, plain := range plains {
		for level, as := range map[int]string{-2: "huffman only", 0: "stored", 1: "fast", 6: "usual", 9: "best"} {
			var b bytes.Buffer
			w, err := flate.NewWriter(&b, level)
			if err != nil {
				t.Fatal(err)
			}
			w.Write(plain[:len(plain)/2])
			w.Flush() // a block ends here, and an empty one follows
			w.Write(plain[len(plain)/2:])
			w.Close()
			streams[name+", "+as] = b.Bytes()
		}
	}
	return streams
}

// inflated is what a stream decodes to, by a decoder of the tests' own.
func inflated(t testing.TB, stream []byte) []byte {
	var b bytes.Buffer
	if _, err := b.ReadFrom(flate.NewReader(bytes.NewReader(stream))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// guarded is n bytes that end where memory ends: touching one more is a fault.
func guarded(t testing.TB, n int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	size := (n + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	if err := unix.Mprotect(m[size:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return m[size-n : size : size]
}

// fenced is n bytes at the end of room, which ends where memory does.
func fenced(room []byte, n int) []byte { return room[len(room)-n:] }

// DeflatePrefix may leave a prefix to Deflate, but not many, and gives no other bytes.
func TestEveryPrefixIsThatOfTheWhole(t *testing.T) {
	const most = 10 << 10
	dst, src := guarded(t, most+1), guarded(t, 2*most)
	left, tried := 0, 0
	var d Decoder
	defer d.Close()
	for name, stream := range deflateStreams(t) {
		plain := inflated(t, stream)
		coded := fenced(src, len(stream))
		copy(coded, stream)
		for n := 1; n <= len(plain); n++ {
			got := fenced(dst, n)
			clear(got)
			tried++
			if err := d.DeflatePrefix(got, coded); errors.Is(err, ErrCorrupt) {
				left++
			} else if err != nil {
				t.Fatalf("%s: the first %d of %d bytes: %v", name, n, len(plain), err)
			} else if !bytes.Equal(got, plain[:n]) {
				t.Fatalf("%s: the first %d of %d bytes differ", name, n, len(plain))
			}
		}
		if err := d.DeflatePrefix(fenced(dst, len(plain)+1), coded); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: one byte more than it has: %v, want ErrCorrupt", name, err)
		}
	}
	if left > tried/1000 {
		t.Errorf("%d of %d prefixes of sound streams were not decoded", left, tried)
	}
}

// A stream that is cut off gives what comes before the cut, or an error.
func TestAPrefixOfACutStreamIsRightOrAnError(t *testing.T) {
	const most = 10 << 10
	dst, src := guarded(t, most), guarded(t, 2*most)
	var d Decoder
	defer d.Close()
	for name, stream := range deflateStreams(t) {
		plain := inflated(t, stream)
		r := rand.New(rand.NewSource(9))
		for range 300 {
			cut, n := r.Intn(len(stream)), 1+r.Intn(len(plain))
			coded, got := fenced(src, cut), fenced(dst, n)
			copy(coded, stream)
			clear(got)
			switch err := d.DeflatePrefix(got, coded); {
			case err != nil && !errors.Is(err, ErrCorrupt):
				t.Fatalf("%s: %v is not ErrCorrupt", name, err)
			case err == nil && !bytes.Equal(got, plain[:n]):
				t.Fatalf("%s: the first %d bytes of a stream cut after %d differ", name, n, cut)
			}
		}
		if err := d.DeflatePrefix(fenced(dst, len(plain)), nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: no coded bytes at all: %v, want ErrCorrupt", name, err)
		}
	}
}

// Streams with bytes changed decode to anything or fail; memory next to the
// buffers is not touched, and what both ways decode is the same.
func TestAPrefixOfGarbageStaysInsideItsBuffers(t *testing.T) {
	const most = 10 << 10
	dst, src, whole := guarded(t, most), guarded(t, 2*most), guarded(t, most)
	var d Decoder
	defer d.Close()
	r := rand.New(rand.NewSource(10))
	for name, stream := range deflateStreams(t) {
		size := len(inflated(t, stream))
		for range 300 {
			coded := fenced(src, len(stream))
			copy(coded, stream)
			for range 1 + r.Intn(4) {
				coded[r.Intn(min(len(coded), 1+r.Intn(len(coded))))] ^= byte(1 << r.Intn(8))
			}
			comparePrefix(t, name, &d, fenced(dst, 1+r.Intn(size)), fenced(whole, size), coded)
		}
	}
}

// comparePrefix decodes coded into prefix and into whole: where both decode, the
// bytes are the same.
func comparePrefix(t *testing.T, name string, d *Decoder, prefix, whole, coded []byte) {
	t.Helper()
	clear(prefix)
	perr, werr := d.DeflatePrefix(prefix, coded), d.Deflate(whole, coded)
	for _, err := range []error{perr, werr} {
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s: %v is not ErrCorrupt", name, err)
		}
	}
	if perr == nil && werr == nil && !bytes.Equal(prefix, whole[:len(prefix)]) {
		t.Fatalf("%s: the first %d bytes differ from the whole's", name, len(prefix))
	}
}

// FuzzPrefix holds the prefix of anything against the whole.
func FuzzPrefix(f *testing.F) {
	for _, stream := range deflateStreams(f) {
		f.Add(uint32(4095), uint32(len(inflated(f, stream))-1), stream)
	}
	var d Decoder
	f.Fuzz(func(t *testing.T, n, size uint32, src []byte) {
		whole := make([]byte, size%(128<<10)+1)
		n = n%uint32(len(whole)) + 1
		prefix := make([]byte, n+64)
		comparePrefix(t, "fuzz", &d, prefix[:n:n], whole, src)
		if !bytes.Equal(prefix[n:], make([]byte, 64)) {
			t.Fatal("written past the buffer")
		}
	})
}
