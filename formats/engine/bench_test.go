package engine

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"glanced/formats"
)

// programs is n bytes of the Go tree's own programs.
func programs(b *testing.B, n int) []byte {
	b.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("no Go tree to take clusters from: ", err)
	}
	names, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "bin", "*"))
	var all []byte
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, data...)
	}
	if len(all) < n {
		b.Skipf("the Go tree has %d bytes of programs, of %d", len(all), n)
	}
	return all[:n]
}

// benchDisk is a disk of real bytes in a local file, as they are (NoCodec) or in
// 64 KiB clusters.
func benchDisk(b *testing.B, codec formats.Codec, cache int64) *Disk {
	const size, cluster = 16 << 20, 64 << 10
	plain := programs(b, size)
	l := &tableLayout{size: size}
	host := plain
	if codec == formats.NoCodec {
		l.extents = []formats.Extent{{Len: size, Kind: formats.Data, N: size}}
	} else {
		host = nil
		for off := int64(0); off < size; off += cluster {
			coded := encode(codec, plain[off:off+cluster])
			l.extents = append(l.extents, formats.Extent{Off: off, Len: cluster, Kind: formats.Compressed, Pos: int64(len(host)), N: int64(len(coded)), Codec: codec, Full: cluster})
			host = append(host, coded...)
		}
	}
	return openTable(b, newTestEngine(b, Options{CacheBytes: cache}), l, newFileSource(b, host))
}

// cpu is the processor time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, since time.Duration) {
	b.ReportMetric(float64((cpu()-since).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}

// BenchmarkReadRandom4K reads 4 KiB at random places from many goroutines.
func BenchmarkReadRandom4K(b *testing.B) {
	for _, codec := range []formats.Codec{formats.NoCodec, formats.Deflate, formats.Zstd} {
		for _, cache := range []int64{0, 2 << 20, 64 << 20} {
			b.Run(fmt.Sprintf("codec=%v/cache=%dMiB", codec, cache>>20), func(b *testing.B) {
				d := benchDisk(b, codec, cache)
				var seed atomic.Int64
				b.SetBytes(4096)
				b.ReportAllocs()
				b.ResetTimer()
				start := cpu()
				b.RunParallel(func(pb *testing.PB) {
					r := rand.New(rand.NewSource(seed.Add(1)))
					p := make([]byte, 4096)
					for pb.Next() {
						if err := d.ReadAt(context.Background(), p, r.Int63n(d.Size()/4096)*4096); err != nil {
							b.Error(err)
							return
						}
					}
				})
				reportCPU(b, start)
			})
		}
	}
}

// BenchmarkReadSequential is one reader that reads a disk from start to end.
func BenchmarkReadSequential(b *testing.B) {
	for _, codec := range []formats.Codec{formats.NoCodec, formats.Deflate, formats.Zstd} {
		for _, size := range []int64{4 << 10, 64 << 10, 1 << 20} {
			for _, cache := range []int64{0, 2 << 20, 64 << 20} {
				if codec == formats.NoCodec && cache > 0 {
					continue
				}
				b.Run(fmt.Sprintf("codec=%v/read=%dKiB/cache=%dMiB", codec, size>>10, cache>>20), func(b *testing.B) {
					d := benchDisk(b, codec, cache)
					p := make([]byte, size)
					b.SetBytes(size)
					b.ReportAllocs()
					b.ResetTimer()
					start := cpu()
					for i := range b.N {
						off := int64(i) * size % d.Size()
						if off == 0 { // each pass finds nothing decoded
							for _, s := range d.srcs {
								d.e.clusters.drop(s.id)
							}
						}
						if err := d.ReadAt(context.Background(), p, off); err != nil {
							b.Fatal(err)
						}
					}
					reportCPU(b, start)
				})
			}
		}
	}
}

// BenchmarkTables reads cached tables from many goroutines.
func BenchmarkTables(b *testing.B) {
	const n = 64 << 10
	reader := newTables(64 << 20).reader(&memSource{data: make([]byte, 16<<20)})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := int64(0); pb.Next(); i++ {
			if _, err := reader.Read(context.Background(), i*7%(16<<20/n)*n, n); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
