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
	"strings"
	"time"
)

// servingBench is one run of bench.
type servingBench struct {
	rounds  int
	data    int64 // bytes of the disk that are not holes
	formats []string
	results *results
}

func benchServing(ctx context.Context) (err error) {
	disk := flag.String("disk", "", "raw `FILE` to serve; none: one is made")
	rounds := flag.Int("rounds", 5, "alternating rounds")
	only := flag.String("formats", "", "comma-separated `NAMES`; none: all")
	against := flag.String("against", "", "`DIR` with the programs of another build of ours")
	out := flag.String("out", "", "Markdown `FILE` to write; none: contrib/bench/results/DATE.md")
	flag.Parse()
	dir, err := os.MkdirTemp("", "glanced-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if *disk == "" {
		*disk = filepath.Join(dir, "disk.raw")
		if err := command(ctx, "contrib/demo/make-disk.sh", "--small", *disk); err != nil {
			return err
		}
	}
	b := &servingBench{rounds: *rounds, results: newResults()}
	if b.data, err = allocated(*disk); err != nil {
		return err
	}
	// Two daemons of each build: one as installed, one whose budget leaves next to
	// nothing for decoded clusters.
	var ours []*glanced
	for i, build := range builds(*against) {
		for _, g := range []*glanced{{build: build, budget: "2GiB"}, {build: build, budget: "32MiB", what: ", no cluster cache"}} {
			if err := g.start(ctx, filepath.Join(dir, fmt.Sprintf("g%d-%s", i, g.budget))); err != nil {
				return err
			}
			defer g.stop()
			ours = append(ours, g)
		}
	}
	for _, f := range formats {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), f.name) {
			continue
		}
		if err := b.measure(ctx, dir, *disk, f, ours); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if len(b.formats) == 0 || b.rounds < 1 {
		return fmt.Errorf("nothing to measure: formats %q, %d rounds", *only, *rounds)
	}
	return writeReport(*out, "", b.report)
}

// measure makes f of disk, and has all serve it.
func (b *servingBench) measure(ctx context.Context, dir, disk string, f format, ours []*glanced) error {
	file := filepath.Join(dir, f.name)
	if err := f.make(ctx, disk, file); err != nil {
		return err
	}
	q := &qemuNBD{}
	if err := q.start(ctx, dir, f, file); err != nil {
		return err
	}
	defer q.stop()
	peers := []peer{q.peer()}
	for _, g := range ours {
		p, err := g.upload(ctx, f, file)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	b.formats = append(b.formats, f.name)
	for _, w := range workloads {
		for round := -1; round < b.rounds; round++ { // round -1 warms up and is not counted
			for _, p := range peers {
				s, err := w.measure(ctx, p, b.data, round)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, p.name, err)
				}
				if round >= 0 {
					b.results.add(key{f.name, w.name, p.name}, s)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "%s %s done\n", f.name, w.name)
	}
	return nil
}

func (b *servingBench) report(w io.Writer) {
	fmt.Fprintf(w, "# Serving one disk over NBD, %s\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(w, "%d MiB of data, %d CPUs, unix socket, page cache warm, medians of %d alternating rounds after a warm-up; ± is half of the rounds' range.\n", b.data>>20, runtime.NumCPU(), b.rounds)
	fmt.Fprintf(w, "CPU is the server's user and system time. Written by `make bench`.\n")
	for _, wl := range workloads {
		b.results.table(w, b.formats, wl, qemuLabel)
	}
}
