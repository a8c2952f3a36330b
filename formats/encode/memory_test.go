package encode_test

import (
	"runtime"
	"testing"
)

// heap is what the heap holds after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// allocated is how many bytes were ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// Laying out and reading takes little memory whatever the disk: all that is ever
// allocated is bounded, so that the heap is, whenever it is looked at.
func TestQCOW2MemoryIsBounded(t *testing.T) {
	const MiB = 1 << 20
	for name, c := range map[string]struct {
		disk *patternDisk
		most int64 // bytes
	}{
		"1 TiB, sparse":               {every(1<<40, 1<<33, 1<<20), 4 * MiB},
		"1 TiB, full":                 {every(1<<40, 1<<40, 1<<40), 1 * MiB},
		"1 TiB, every second cluster": {every(1<<40, 128<<10, 64<<10), 8 * MiB},
		"64 TiB, scattered":           {every(64<<40, 1<<30, 1), 64 * MiB},
	} {
		t.Run(name, func(t *testing.T) {
			heapBefore, before := heap(), allocated()
			img := mustQCOW2(t, c.disk)
			buf := make([]byte, 64<<10)
			// The tables in front, the middle and the end.
			for _, off := range []int64{0, 64 << 10, 1 << 20, img.Size() / 2, img.Size() - int64(len(buf))} {
				if err := img.ReadAt(t.Context(), buf, off); err != nil {
					t.Fatal(err)
				}
			}
			ever, kept := allocated()-before, heap()-heapBefore
			t.Logf("%d KiB allocated, %d KiB kept", ever>>10, kept>>10)
			if max(ever, kept) > c.most {
				t.Errorf("%d bytes allocated and %d kept, want at most %d", ever, kept, c.most)
			}
			runtime.KeepAlive(img)
		})
	}
}
