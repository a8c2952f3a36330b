package all

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"glanced/backends/localfile"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
)

// Opening a disk of 2 TiB costs little memory in any format: tables are read when
// what they map is.
func TestOpeningAHugeImageTakesLittleMemory(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	const most = 4 << 20
	for _, c := range []struct {
		driver, format, size string
		options              []string
	}{
		{"qcow2", "qcow2", "2T", []string{"-o", "cluster_size=64k"}},
		{"qcow2", "qcow2", "2T", []string{"-o", "cluster_size=64k,extended_l2=on"}},
		{"vmdk", "vmdk", "2047G", nil},
		{"vhdx", "vhdx", "2T", nil},
		{"vdi", "vdi", "2T", nil},
		{"vhd", "vpc", "2000G", []string{"-o", "force_size=on"}},
		{"ploop", "parallels", "2T", nil},
		{"raw", "raw", "2T", nil},
	} {
		driver, ok := formats.Find(Drivers(), c.driver)
		if !ok {
			t.Fatalf("no driver %s", c.driver)
		}
		name := filepath.Join(t.TempDir(), "image")
		testbed.Run(t, "qemu-img", append(append([]string{"create", "-q", "-f", c.format}, c.options...), name, c.size)...)

		e := engine.New(engine.Options{CacheBytes: 64 << 20, TableBytes: 32 << 20})
		before := heap()
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		src, err := localfile.New(f, "")
		if err != nil {
			t.Fatal(err)
		}
		d, err := e.Open(t.Context(), driver, src, engine.OpenOptions{})
		if err != nil {
			t.Errorf("%s: %v", c.driver, err)
			e.Close()
			continue
		}
		after := heap()
		if held := after.HeapAlloc - before.HeapAlloc; after.HeapAlloc > before.HeapAlloc && held >= most {
			t.Errorf("%s %v: an open disk holds %d KiB", c.driver, c.options, held>>10)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took >= most {
			t.Errorf("%s %v: opening it took %d KiB in all", c.driver, c.options, took>>10)
		} else {
			t.Logf("%s %v: %d KiB", c.driver, c.options, took>>10)
		}
		d.Close()
		e.Close()
	}
}

// heap is the state of the heap when all garbage is gone.
func heap() runtime.MemStats {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m
}
