package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkRead keeps 32 reads in flight on one unix socket, of a disk in a
// local file, in memory, and of zeros. Client and server share the machine.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	noise := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < size; i += 8 {
		binary.NativeEndian.PutUint64(noise[i:], r.Uint64())
	}
	for name, d := range map[string]*disk{
		"file": newDisk("d", noise).onFile(b), "memory": newDisk("d", noise), "zeros": newDisk("d", make([]byte, size)),
	} {
		for _, n := range []int{4 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dk", name, n>>10), func(b *testing.B) {
				_, unix, _ := serve(b, Config{Exports: newLibrary(d)})
				p := open(b, unix, "d", true)
				p.SetDeadline(time.Time{})
				b.SetBytes(int64(n))
				b.ReportAllocs()
				ask := func() {
					p.request(cmdRead, 0, uint64(r.IntN(size/n)*n), uint32(n))
				}
				left := 0
				for ; left < min(32, b.N); left++ {
					ask()
				}
				head := make([]byte, chunkSize)
				for i := range b.N {
					if _, err := io.ReadFull(p.Conn, head); err != nil {
						b.Fatal(err)
					}
					if kind := binary.BigEndian.Uint16(head[6:]); kind&(1<<15) != 0 || binary.BigEndian.Uint16(head[4:])&chunkDone == 0 {
						b.Fatalf("chunk %d of read %d", kind, i)
					}
					if _, err := io.CopyN(io.Discard, p.Conn, int64(binary.BigEndian.Uint32(head[16:]))); err != nil {
						b.Fatal(err)
					}
					if left < b.N {
						ask()
						left++
					}
				}
			})
		}
	}
}
