package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// smallFormats are those whose bytes are served as they lie in the file: what a small
// read costs there is all the server's own.
var smallFormats = []string{"raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "parallels"}

// smallBench is one run of bench small.
type smallBench struct {
	rounds  int
	seconds float64 // of each run of fio
	data    int64   // bytes of the disk that are not holes
	size    int64
	builds  []build
	read    []string // formats
	results *results
}

// depths are how many reads are under way at once.
var depths = []int{1, 32}

func atDepth(n int) workload {
	return workload{name: fmt.Sprintf("Depth %d", n), rateUnit: "reads/s", cpuUnit: "µs per read",
		what: fmt.Sprintf("`fio --ioengine=nbd --rw=randread --bs=4k --iodepth=%d`, one connection, all of the disk, holes too. CPU is the server's.", n)}
}

func benchSmall(ctx context.Context) (err error) {
	disk := flag.String("disk", "", "raw `FILE` to read; none: one of 4 GiB is made")
	small := flag.Bool("small", false, "a small disk, one round, short runs: to see that it runs")
	rounds := flag.Int("rounds", 5, "alternating rounds")
	seconds := flag.Float64("seconds", 3, "of each run of fio")
	only := flag.String("formats", "", "comma-separated `NAMES`; none: all")
	against := flag.String("against", "", "`DIR` with the programs of another build of ours")
	out := flag.String("out", "", "Markdown `FILE` to write; none: contrib/bench/results/small-DATE.md (with --small: none)")
	flag.Parse()
	b := &smallBench{rounds: *rounds, seconds: *seconds, builds: builds(*against), results: newResults()}
	variant := "--usr"
	if *small {
		b.rounds, b.seconds, variant = 1, 0.2, "--small"
	}
	if b.rounds < 1 {
		return fmt.Errorf("%d rounds", b.rounds)
	}
	dir, err := os.MkdirTemp("", "glanced-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if *disk == "" {
		*disk = filepath.Join(dir, "disk.raw")
		if err := command(ctx, "contrib/demo/make-disk.sh", variant, *disk); err != nil {
			return err
		}
	}
	info, err := os.Stat(*disk)
	if err != nil {
		return err
	}
	b.size = info.Size()
	if b.data, err = allocated(*disk); err != nil {
		return err
	}
	for _, f := range readFormats {
		if !slices.Contains(smallFormats, f.name) || *only != "" && !slices.Contains(strings.Split(*only, ","), f.name) {
			continue
		}
		if err := b.measure(ctx, dir, *disk, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if *small && *out == "" { // no figures to keep
		b.report(os.Stdout)
		return nil
	}
	return writeReport(*out, "small-", b.report)
}

// measure makes f of disk, and has all serve it.
func (b *smallBench) measure(ctx context.Context, dir, disk string, f format) error {
	file := filepath.Join(dir, "image."+f.name)
	defer os.Remove(file)
	if err := f.make(ctx, disk, file); err != nil {
		return err
	}
	q := &qemuNBD{}
	if err := q.start(ctx, dir, f, file); err != nil {
		return err
	}
	defer q.stop()
	peers := []peer{q.peer()}
	if f.name == "raw" {
		n := &nbdkit{}
		if err := n.start(ctx, dir, file); err != nil {
			return err
		}
		defer n.stop()
		peers = append(peers, n.peer())
	}
	for i, build := range b.builds {
		home := filepath.Join(dir, fmt.Sprintf("%s-%d", f.name, i))
		defer os.RemoveAll(home)
		g := &glanced{build: build, budget: "512MiB"}
		if err := g.start(ctx, home); err != nil {
			return err
		}
		defer g.stop()
		p, err := g.upload(ctx, f, file)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	b.read = append(b.read, f.name)
	for _, n := range depths {
		for round := -1; round < b.rounds; round++ { // round -1 warms up and is not counted
			for _, p := range peers {
				s, err := fio(ctx, p, round, "--iodepth="+strconv.Itoa(n), "--time_based", fmt.Sprintf("--runtime=%gms", b.seconds*1000))
				if err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				if round >= 0 {
					b.results.add(key{f.name, atDepth(n).name, p.name}, s)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "%s at depth %d done\n", f.name, n)
	}
	return nil
}

func (b *smallBench) report(w io.Writer) {
	fmt.Fprintf(w, "# Small reads over NBD, %s\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(w, "A disk of %d MiB, %d of them data, %d CPUs, unix socket, every copy read beforehand, medians of %d alternating rounds after a warm-up; ± is half of the rounds' range. Written by `make bench-small`.\n",
		b.size>>20, b.data>>20, runtime.NumCPU(), b.rounds)
	for _, n := range depths {
		b.results.table(w, b.read, atDepth(n), qemuLabel)
	}
}
