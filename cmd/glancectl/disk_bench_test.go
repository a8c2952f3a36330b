package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type benched struct {
	Bytes, Reads int64
	Seconds      float64
	CPUSeconds   float64 `json:"cpu_seconds"`
	Rate         float64 `json:"mib_per_s"`
}

func bench(t *testing.T, args ...string) benched {
	t.Helper()
	return decode[benched](t, glancectl(t, "", append([]string{"disk", "bench", "-f", "json"}, args...)...).ok())
}

func TestBenchReadsAllDataOnceAndNoHoles(t *testing.T) {
	eachVariant(t, func(t *testing.T, format, image, guest string) {
		info := decode[map[string]any](t, glancectl(t, "", "disk", "info", "-f", "json", image).ok())
		for _, more := range [][]string{nil, {"--workers", "1"}, {"--workers", "7", "--cache", "0"}, {"--cache", "1MiB", "--warm"}} {
			b := bench(t, append(more, image)...)
			if float64(b.Bytes) != info["allocated_size"] || b.Reads < 1 || b.Seconds <= 0 || b.CPUSeconds < 0 || b.Rate <= 0 {
				t.Errorf("%q: %+v of %v bytes", more, b, info["allocated_size"])
			}
		}
	})
}

func TestBenchReadsRandomBlocksThatHoldData(t *testing.T) {
	eachVariant(t, func(t *testing.T, format, image, guest string) {
		for _, more := range [][]string{nil, {"--block", "64KiB", "--seed", "9", "--workers", "3"}, {"--cache", "0", "--block", "1000"}} {
			b := bench(t, append(more, "--random", "200", image)...)
			if b.Reads != 200 || b.Bytes < 200*1000 || b.Bytes%200 != 0 {
				t.Errorf("%q: %+v", more, b)
			}
		}
	})
}

func TestRandomBlocksAreDecidedByTheSeedAndLieInData(t *testing.T) {
	guest := guestDisk(t)
	d, err := openDisk(t.Context(), guest, diskOptions{format: "raw"}, diskEngine())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	g, err := d.guest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	const block = 4096
	runs, err := dataRuns(t.Context(), g, block)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	// Every block that is not zeros is among them, and few others.
	in := map[int64]bool{}
	for i := range runs[:len(runs)-1] {
		for k := range runs[i+1].before - runs[i].before {
			in[runs[i].first+k] = true
		}
	}
	if total := runs[len(runs)-1].before; int64(len(in)) != total {
		t.Errorf("%d blocks, %d of them different", total, len(in))
	}
	for i := range int64(len(content) / block) {
		if strings.Trim(string(content[i*block:(i+1)*block]), "\x00") != "" && !in[i] {
			t.Errorf("block %d holds data, and is not among those to read", i)
		}
	}
	if max := int64(len(content)) / block / 2; int64(len(in)) > max {
		t.Errorf("%d blocks are to be read, of a disk that is mostly holes", len(in))
	}
}

func TestBenchRefusesWhatItCannotDo(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(empty, 1<<20); err != nil {
		t.Fatal(err)
	}
	if b := bench(t, empty); b.Bytes != 0 || b.Reads != 0 {
		t.Errorf("of a hole: %+v", b)
	}
	glancectl(t, "", "disk", "bench", empty, "--random", "1").fails(exitFailed, "holds no data")
	for args, says := range map[string]string{
		"--random 0": "below 1", "--random x": "random", "--block 0 --random 1": "--block", "--block 1GiB --random 1": "--block",
		"--block 512": "--random", "--seed 3": "--random", "--cache 5%": "is not a size", "--cache -1": "is not a size",
		"--cache 9999999TiB": "is not a size", "--workers 0": "--workers", "--workers 9999": "--workers",
	} {
		glancectl(t, "", append([]string{"disk", "bench", empty}, strings.Fields(args)...)...).fails(exitUsage, says)
	}
	for text, want := range map[string]int64{"0": 0, "512": 512, "64MiB": 64 << 20, "2GiB": 2 << 30, " 1 KiB ": 1 << 10} {
		if n, err := parseSize(text); n != want || err != nil {
			t.Errorf("%q is %d, %v", text, n, err)
		}
	}
}
