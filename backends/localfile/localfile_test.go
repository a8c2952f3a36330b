package localfile_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
)

// sparse is a file of 1 MiB with 64 KiB of data at 256 KiB, and holes around it.
func sparse(t *testing.T) (*localfile.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("x"), 64<<10), 256<<10); err != nil {
		t.Fatal(err)
	}
	s, err := localfile.New(f, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func TestExtentsCoverTheRangeAndNameTheHoles(t *testing.T) {
	s, _ := sparse(t)
	type run struct {
		off, n int64
		hole   bool
	}
	var got []run
	collect := func(off, n int64, hole bool) bool { got = append(got, run{off, n, hole}); return true }
	if err := s.Extents(t.Context(), 1000, 1<<20-1000, collect); err != nil {
		t.Fatal(err)
	}
	want := []run{{1000, 256<<10 - 1000, true}, {256 << 10, 64 << 10, false}, {320 << 10, 704 << 10, true}}
	if len(got) == 1 && !got[0].hole {
		testbed.Unable(t, "the file system of the temporary folder keeps no holes: set TMPDIR to one that does")
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("run %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestRangesOutsideAreRefused(t *testing.T) {
	s, _ := sparse(t)
	for _, c := range []struct{ off, n int64 }{{-1, 1}, {1 << 20, 1}, {0, 1<<20 + 1}, {1<<63 - 1, 1}} {
		if c.n < 1<<21 {
			if err := s.ReadAt(t.Context(), make([]byte, c.n), c.off); !errors.Is(err, stored.ErrRange) {
				t.Errorf("ReadAt(%d, %d) = %v", c.off, c.n, err)
			}
		}
		if _, ok := s.FileRange(c.off, c.n); ok {
			t.Errorf("FileRange(%d, %d) is given", c.off, c.n)
		}
		if err := s.Extents(t.Context(), c.off, c.n, func(int64, int64, bool) bool { return true }); !errors.Is(err, stored.ErrRange) {
			t.Errorf("Extents(%d, %d) = %v", c.off, c.n, err)
		}
	}
}

func TestAFileThatWasCutOffFailsAReadAndIsNotZeros(t *testing.T) {
	s, path := sparse(t)
	if err := os.Truncate(path, 300<<10); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadAt(t.Context(), make([]byte, 4096), 300<<10-100); !errors.Is(err, stored.ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestReadAtFollowsItsContext(t *testing.T) {
	s, _ := sparse(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCloseTwiceIsCloseOnce(t *testing.T) {
	s, _ := sparse(t)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// data has zeros in runs of every kind of length.
func data() []byte {
	b := make([]byte, 1<<20+5000)
	for at := 3000; at < len(b); at += 50_000 {
		copy(b[at:], bytes.Repeat([]byte("data"), 5000))
	}
	clear(b[700_000:900_000])
	return b
}

func TestASparseWriterWritesItsInputInAnyPieces(t *testing.T) {
	data := data()
	for _, piece := range []int{1 << 20, 32 << 10, 4096, 4095, 1000, 7777} {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		var asked int64
		w := localfile.NewSparseWriter(f, func(n int64) error { asked += n; return nil })
		for part := range slices.Chunk(data, piece) {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, data) {
			t.Errorf("in pieces of %d: %d bytes, %v", piece, len(got), err)
		}
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > asked || asked > int64(len(data))*3/4 {
			t.Errorf("in pieces of %d: %d bytes are allocated, room was asked for %d", piece, used, asked)
		}
	}
}

func TestSparseWritesAnywhereLeaveOutZeros(t *testing.T) {
	data := data()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := 0; at < len(data); {
		n := min(1+at%77_777, len(data)-at)
		if err := localfile.WriteSparse(f, data[at:at+n], int64(at), 4096); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAFullWriterSaysSo(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	full := errors.New("full")
	w := localfile.NewSparseWriter(f, func(int64) error { return full })
	if n, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("zeros need no room: %d, %v", n, err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), 8192)); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatWasCutOffIsNoWholeFile(t *testing.T) {
	s, path := sparse(t)
	if r, ok := s.WholeFile(); !ok || r.Pos != 0 || r.Len != 1<<20 {
		t.Errorf("got %+v, %v", r, ok)
	}
	if err := os.Truncate(path, 300<<10); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.WholeFile(); ok {
		t.Error("a file that was cut off is handed out as a whole")
	}
}
