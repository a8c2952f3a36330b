package codec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// What is encoded decodes again, behind what was in the buffer before, whether it
// grows or not, and after Close.
func TestZlibIsReadAgain(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	var e Encoder
	var d Decoder
	defer d.Close()
	for round := range 2 {
		for name, plain := range map[string][]byte{
			"nothing": {},
			"a byte":  {7},
			"zeros":   make([]byte, 64<<10),
			"noise":   noise, // grows when coded
			"text":    bytes.Repeat([]byte("which lies in clusters of "), 2000),
		} {
			for _, room := range []int{0, 1 << 20} {
				before := []byte("marker")
				got, err := e.Zlib(append(make([]byte, 0, room+len(before)), before...), plain)
				if err != nil {
					t.Fatalf("round %d, %s: %v", round, name, err)
				}
				if !bytes.HasPrefix(got, before) {
					t.Fatalf("%s: what was in the buffer is gone", name)
				}
				back := make([]byte, len(plain))
				if err := d.Zlib(back, got[len(before):]); err != nil || !bytes.Equal(back, plain) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		e.Close()
	}
}

// BenchmarkEncode encodes 64 KiB clusters of the Go tree's own programs; ratio is
// the coded size, of the whole.
func BenchmarkEncode(b *testing.B) {
	const cluster = 64 << 10
	plain := programs(b)
	b.Run(fmt.Sprintf("%s/zlib", Libraries), func(b *testing.B) {
		var e Encoder
		defer e.Close()
		var coded []byte
		total := 0
		b.SetBytes(cluster)
		for i := range b.N {
			at := i * cluster % (len(plain) / cluster * cluster)
			var err error
			if coded, err = e.Zlib(coded[:0], plain[at:at+cluster]); err != nil {
				b.Fatal(err)
			}
			total += len(coded)
		}
		b.ReportMetric(float64(total)/float64(b.N)/cluster, "ratio")
	})
}
