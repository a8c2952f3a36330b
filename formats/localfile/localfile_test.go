package localfile_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/localfile"
)

// sparse is a file of 1 MiB with 64 KiB of data at 256 KiB, and holes around it.
func sparse(t *testing.T) (*localfile.Source, string) {
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
	s, err := localfile.New(f)
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
		formattest.Unable(t, "the file system of the temporary folder keeps no holes: set TMPDIR to one that does")
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
			if err := s.ReadAt(t.Context(), make([]byte, c.n), c.off); !errors.Is(err, formats.ErrRange) {
				t.Errorf("ReadAt(%d, %d) = %v", c.off, c.n, err)
			}
		}
		if _, _, ok := s.FileRange(c.off, c.n); ok {
			t.Errorf("FileRange(%d, %d) is given", c.off, c.n)
		}
		if err := s.Extents(t.Context(), c.off, c.n, func(int64, int64, bool) bool { return true }); !errors.Is(err, formats.ErrRange) {
			t.Errorf("Extents(%d, %d) = %v", c.off, c.n, err)
		}
	}
}

func TestAFileThatWasCutOffFailsAReadAndIsNotZeros(t *testing.T) {
	s, path := sparse(t)
	if err := os.Truncate(path, 300<<10); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadAt(t.Context(), make([]byte, 4096), 300<<10-100); !errors.Is(err, io.ErrUnexpectedEOF) {
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
