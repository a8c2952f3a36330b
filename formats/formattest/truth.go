package formattest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Truth is a raw disk with known content, from which images are made.
type Truth struct {
	Name string
	Size int64 // bytes
	// write puts the content into a file that is already Size bytes of hole.
	write func(f *os.File) error
}

// Truths are the disks that Golden makes every variant of:
//
//	mixed   text, noise and zeros in runs of many lengths; ends inside a cluster and a sector
//	sparse  9 GiB of address space with a few islands, the last one at the very end
//	zeros   written zeros, no holes
//	tiny    one sector
var Truths = []Truth{
	{"mixed", 3<<20 + 3*512 + 100, writeMixed},
	{"sparse", 9<<30 + 7*512, writeIslands},
	{"zeros", 2<<20 + 512, writeZeros},
	{"tiny", 512, func(f *os.File) error { return writeNoise(f, 0, 512, 9) }},
}

// Make writes the disk into dir, and says where.
func (tr Truth) Make(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, tr.Name+".raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(tr.Size); err != nil {
		t.Fatal(err)
	}
	if err := tr.write(f); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeZeros(f *os.File) error {
	_, err := f.WriteAt(make([]byte, 2<<20+512), 0)
	return err
}

// writeMixed alternates content that compresses, content that does not, and
// zeros, in runs from one sector to many clusters.
func writeMixed(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for off, i := int64(0), 0; off < st.Size(); i++ {
		n := min(int64(512)<<rnd.IntN(9)+rnd.Int64N(4096), st.Size()-off)
		switch i % 4 {
		case 0:
			err = writeNoise(f, off, n, uint64(i))
		case 1, 3:
			err = writeText(f, off, n, i)
		}
		if err != nil {
			return err
		}
		off += n
	}
	// The tail is data, so that the last, partial cluster is stored.
	return writeText(f, st.Size()-700, 700, 99)
}

func writeIslands(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for i, off := range []int64{0, 1<<20 + 4096, 1<<31 - 8192, 1 << 32, 5<<30 + 12345*512, st.Size() - 200_000} {
		if err := writeNoise(f, off, 60_000, uint64(i)); err != nil {
			return err
		}
		if err := writeText(f, off+60_000, 140_000, i); err != nil {
			return err
		}
	}
	return nil
}

func writeNoise(f *os.File, off, n int64, seed uint64) error {
	b := make([]byte, n)
	rnd := rand.New(rand.NewPCG(seed, 7))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	_, err := f.WriteAt(b, off)
	return err
}

// writeText is content that compresses about as well as an operating system does.
func writeText(f *os.File, off, n int64, seed int) error {
	words := []string{"the ", "disk ", "of ", "a ", "guest ", "lies ", "in ", "clusters\n", "which ", "are ", "mapped "}
	rnd := rand.New(rand.NewPCG(uint64(seed), 8))
	b := make([]byte, 0, n+16)
	for int64(len(b)) < n {
		b = append(b, words[rnd.IntN(len(words))]...)
	}
	_, err := f.WriteAt(b[:n], off)
	return err
}
