package compressed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/container/compressed"
	"glanced/formats/container/spool"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
)

// disk is n bytes as a disk has them: noise, text and zeros.
func disk(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	for off := 0; off < n; off += 64 << 10 {
		part := b[off:min(off+64<<10, n)]
		switch (off >> 16) % 4 {
		case 0:
			r.Read(part)
		case 1:
			copy(part, bytes.Repeat([]byte("a line of text in a file\n"), len(part)/25+1))
		}
	}
	return b
}

// noise is n bytes that nothing compresses.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

// compress is b as a command makes it, which reads stdin and writes stdout.
func compress(t testing.TB, b []byte, program string, args ...string) []byte {
	t.Helper()
	testbed.Need(t, program, map[string]string{"gzip": "gzip", "zstd": "zstd", "xz": "xz-utils", "bzip2": "bzip2"}[program])
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", program, args, err)
	}
	return out
}

func openBytes(t testing.TB, coded []byte, o container.Options) (container.Opened, error) {
	t.Helper()
	if o.Spool == nil {
		o.Spool = spool.Temporary(t.TempDir())
	}
	return compressed.Container().Open(t.Context(), formattest.Memory(coded), o)
}

func content(t testing.TB, src stored.Bytes) []byte {
	t.Helper()
	b := make([]byte, src.Size())
	if err := src.ReadAt(t.Context(), b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// writers are the commands, with the options that change what the stream is made of.
var writers = []struct {
	name    string
	command string
}{
	{"gzip", "gzip -c"},
	{"gzip fast", "gzip -1 -c"},
	{"zstd", "zstd -c"},
	{"zstd threads", "zstd -T2 -B512K -c"},
	{"zstd without checksum", "zstd --no-check -c"},
	{"zstd long", "zstd --long=27 -c"},
	{"xz", "xz -c"},
	{"xz blocks", "xz -T2 --block-size=262144 -c"},
	{"xz sha256", "xz --check=sha256 -c"},
	{"xz no check", "xz --check=none -c"},
	{"xz bcj", "xz --x86 --lzma2=preset=1 -c"},
	{"xz extreme", "xz -9 -c"},
	{"bzip2", "bzip2 -c"},
	{"bzip2 fast", "bzip2 -1 -c"},
}

func TestOpensWhatTheCommandsWrite(t *testing.T) {
	want := disk(200<<10 + 12345)
	for _, w := range writers {
		t.Run(w.name, func(t *testing.T) {
			args := strings.Fields(w.command)
			one := compress(t, want[:150000], args[0], args[1:]...)
			two := compress(t, want[150000:], args[0], args[1:]...)
			all := compress(t, want, args[0], args[1:]...)
			for name, coded := range map[string][]byte{"one stream": all, "streams after each other": append(one[:len(one):len(one)], two...)} {
				if !compressed.Container().Probe(coded[:min(len(coded), formats.ProbeLen)]) {
					t.Errorf("%s: not recognised", name)
				}
				o, err := openBytes(t, coded, container.Options{})
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if !bytes.Equal(content(t, o.Image), want) {
					t.Errorf("%s: other content", name)
				}
				o.Image.Close()
			}
		})
	}
}

// Whatever is missing at the end, or follows it, a disk that is too short or not
// the one that was compressed must not come out.
func TestCutOffAndFollowedByGarbageIsCorrupt(t *testing.T) {
	want := disk(70 << 10)
	for _, w := range writers {
		t.Run(w.name, func(t *testing.T) {
			args := strings.Fields(w.command)
			coded := compress(t, want, args[0], args[1:]...)
			cuts := []int{len(coded) - 1, len(coded) - 4, len(coded) - 8, len(coded) - 12, len(coded) - 28, len(coded) / 2, 24}
			for _, n := range cuts {
				if o, err := openBytes(t, coded[:n], container.Options{}); !errors.Is(err, formats.ErrCorrupt) {
					t.Errorf("%d of %d bytes: %v, %v", n, len(coded), o.Image, err)
				}
			}
			for _, tail := range []string{"x", "garbage after the end", strings.Repeat("\x00", 511), string(coded[:7])} {
				if o, err := openBytes(t, append(coded[:len(coded):len(coded)], tail...), container.Options{}); !errors.Is(err, formats.ErrCorrupt) {
					t.Errorf("followed by %.20q: %v, %v", tail, o.Image, err)
				}
			}
		})
	}
}

func TestEveryCutBetweenXZBlocksIsCorrupt(t *testing.T) {
	coded := compress(t, disk(256<<10), "xz", "--block-size=16384", "-0", "-c")
	for n := 12; n < len(coded); n += 4 {
		if _, err := openBytes(t, coded[:n], container.Options{}); !errors.Is(err, formats.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(coded), err)
		}
		if n == 64 {
			n = len(coded) - 12 - 4*200 // the index, and the end of the last block
			n &^= 3
		}
	}
}

func TestXZPaddingBetweenStreamsIsLegal(t *testing.T) {
	want := disk(100000)
	coded := compress(t, want, "xz", "-c")
	coded = append(append(append(coded[:len(coded):len(coded)], 0, 0, 0, 0), coded...), make([]byte, 8)...)
	o, err := openBytes(t, coded, container.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, o.Image), append(want[:len(want):len(want)], want...)) {
		t.Error("other content")
	}
}

func TestFlippedBitsAreCorrupt(t *testing.T) {
	want := disk(70 << 10)
	for _, w := range []string{"gzip -c", "zstd -c", "xz -c", "bzip2 -c"} {
		args := strings.Fields(w)
		coded := compress(t, want, args[0], args[1:]...)
		for i := 40; i < len(coded); i += len(coded)/10 + 1 {
			bad := bytes.Clone(coded)
			bad[i] ^= 0x10
			if o, err := openBytes(t, bad, container.Options{}); err == nil && !bytes.Equal(content(t, o.Image), want) {
				t.Errorf("%s with byte %d flipped is another disk", w, i)
			} else if err != nil && !errors.Is(err, formats.ErrCorrupt) && !errors.Is(err, formats.ErrUnsupported) && !errors.Is(err, formats.ErrLimit) {
				t.Errorf("%s with byte %d flipped: %v", w, i, err)
			}
		}
	}
}

// written is how many bytes come out of coded before the limits of o stop it.
func written(t *testing.T, coded []byte, o container.Options) (n int64) {
	t.Helper()
	o.Spool = func(ctx context.Context, fill func(context.Context, io.Writer) error) (stored.Bytes, error) {
		return nil, fill(ctx, writerFunc(func(p []byte) (int, error) { n += int64(len(p)); return len(p), nil }))
	}
	if _, err := openBytes(t, coded, o); !errors.Is(err, formats.ErrLimit) {
		t.Errorf("got %v", err)
	}
	return n
}

func TestABombStopsEarly(t *testing.T) {
	for _, w := range []string{"gzip -9 -c", "zstd -c", "xz -0 -c", "bzip2 -1 -c"} {
		args := strings.Fields(w)
		coded := compress(t, make([]byte, 4<<20), args[0], args[1:]...)
		if n := written(t, coded, container.Options{MaxBytes: 1 << 20}); n > 1<<20 {
			t.Errorf("%s: %d bytes came out", w, n)
		}
	}
}

func TestGrowingTooMuchStopsOnceItIsOver64MiB(t *testing.T) {
	zeros := make([]byte, 70<<20)
	coded := compress(t, zeros, "zstd", "-c")
	if n := written(t, coded, container.Options{MaxRatio: 100}); n > 64<<20 {
		t.Errorf("%d bytes came out", n)
	}
	o, err := openBytes(t, coded, container.Options{MaxRatio: 1 << 50})
	if err != nil || o.Image.Size() != int64(len(zeros)) {
		t.Errorf("without a limit: %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What a stream says it needs is not allocated before it is checked.
func TestLargeWindowsAreRefusedBeforeAllocation(t *testing.T) {
	data := disk(400 << 10)
	cases := map[string][]byte{
		"zstd --long=28": compress(t, data, "zstd", "-1", "--long=28", "-c"),
		"zstd --long=31": compress(t, data, "zstd", "-1", "--long=31", "-c"),
		"xz dict=1GiB":   compress(t, data, "xz", "--lzma2=preset=0,dict=1GiB", "-c"),
	}
	for name, coded := range cases {
		t.Run(name, func(t *testing.T) {
			before := allocated()
			_, err := openBytes(t, coded, container.Options{})
			if !errors.Is(err, formats.ErrLimit) {
				t.Errorf("got %v", err)
			}
			if n := allocated() - before; n > 160<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func TestTheNameInGzipIsTold(t *testing.T) {
	testbed.Need(t, "gzip", "gzip")
	path := filepath.Join(t.TempDir(), "system.img")
	if err := os.WriteFile(path, disk(5000), 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "gzip", path)
	o, err := compressed.Container().Open(t.Context(), formattest.OpenFile(t, path+".gz"), container.Options{Spool: spool.Temporary(t.TempDir())})
	if err != nil || o.Name != "system.img" {
		t.Errorf("got %q, %v", o.Name, err)
	}
}

func TestWhatIsNotCompressedIsOfAnotherFormat(t *testing.T) {
	for _, b := range []string{"", "B", "BZh9 is a text", "\x1f\x8b", "QFI\xfb\x00\x00\x00\x03", "PK\x03\x04", "\x50\x2a\x4d\x18\x00\x00\x00\x00"} {
		if _, err := openBytes(t, []byte(b), container.Options{}); !errors.Is(err, formats.ErrFormat) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

func TestPzstdIsRecognisedBehindItsSkippableFrame(t *testing.T) {
	want := disk(100000)
	coded := append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"), compress(t, want, "zstd", "-c")...)
	o, err := openBytes(t, coded, container.Options{})
	if err != nil || !bytes.Equal(content(t, o.Image), want) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutASpoolItIsUnsupportedAndTheSourceStaysOpen(t *testing.T) {
	src := formattest.Memory(compress(t, disk(5000), "gzip", "-c"))
	if _, err := compressed.Container().Open(t.Context(), src, container.Options{}); !errors.Is(err, formats.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if err := src.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
		t.Errorf("the source was closed: %v", err)
	}
}

func TestErrorsOfTheSourceAndTheSpoolAreTheirOwn(t *testing.T) {
	for _, w := range []string{"gzip -1", "zstd", "xz -0", "bzip2"} {
		n, read := 1<<20+64<<10, int64(3) // the second chunk; the first read is for the head
		if w == "bzip2" {                 // is slow
			n, read = 64<<10, 2
		}
		args := append(strings.Fields(w), "-c")
		coded := compress(t, noise(n), args[0], args[1:]...)
		src := formattest.Memory(coded)
		src.FailFrom(read)
		_, err := compressed.Container().Open(t.Context(), src, container.Options{Spool: spool.Temporary(t.TempDir())})
		if !errors.Is(err, formattest.ErrInjected) || errors.Is(err, formats.ErrCorrupt) {
			t.Errorf("%s, the source fails: %v", w, err)
		}
		full := errors.New("no space")
		_, err = openBytes(t, coded, container.Options{Spool: func(ctx context.Context, fill func(context.Context, io.Writer) error) (stored.Bytes, error) {
			return nil, fill(ctx, writerFunc(func(p []byte) (int, error) { return 0, full }))
		}})
		if !errors.Is(err, full) || errors.Is(err, formats.ErrCorrupt) {
			t.Errorf("%s, the spool fails: %v", w, err)
		}
	}
}

// endless never answers once it was asked for what lies behind its head.
type endless struct {
	*formattest.Mem
	asked chan struct{}
}

func (e endless) Size() int64 { return 1 << 40 }
func (e endless) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off == 0 {
		return e.Mem.ReadAt(ctx, p, off)
	}
	select {
	case e.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestCancelEndsADecompressionThatWaitsForBytes(t *testing.T) {
	for _, w := range []string{"gzip -1", "zstd", "xz -0"} {
		args := append(strings.Fields(w), "-c")
		ctx, cancel := context.WithCancel(t.Context())
		src := endless{formattest.Memory(compress(t, noise(1<<20+64<<10), args[0], args[1:]...)), make(chan struct{}, 1)}
		go func() { <-src.asked; cancel() }()
		_, err := compressed.Container().Open(ctx, src, container.Options{Spool: spool.Temporary(t.TempDir())})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", w, err)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	small := disk(200 << 10)[60<<10 : 70<<10]
	for _, w := range writers {
		args := strings.Fields(w.command)
		f.Add(compress(f, small, args[0], args[1:]...))
	}
	for _, b := range hostile.ContainerSeeds("compressed") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, coded []byte) {
		const most = 16 << 20
		o, err := openBytes(t, coded, container.Options{MaxBytes: most})
		if err == nil {
			if o.Image.Size() > most {
				t.Errorf("%d bytes came out", o.Image.Size())
			}
			o.Image.Close()
			return
		}
		for _, s := range []error{formats.ErrFormat, formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported} {
			if errors.Is(err, s) {
				return
			}
		}
		t.Errorf("no sentinel in %v", err)
	})
}
