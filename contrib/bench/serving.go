package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// servingBench is one run of bench.
type servingBench struct {
	*run
	data int64      // bytes of the disk that are not holes
	ours []*glanced // two daemons of each build
	read []string   // formats
}

func benchServing(ctx context.Context) (err error) {
	r, err := newRun("with some hundred MiB of data")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	if err := r.makeDisk(ctx, "--small"); err != nil {
		return err
	}
	b := &servingBench{run: r}
	if b.data, err = allocated(r.disk); err != nil {
		return err
	}
	// One as installed, one whose budget leaves next to nothing for decoded clusters.
	for i, build := range builds(r.against) {
		for _, g := range []*glanced{{build: build, budget: "2GiB"}, {build: build, budget: "32MiB", what: ", no cluster cache"}} {
			if err := g.start(ctx, filepath.Join(r.dir, fmt.Sprintf("g%d-%s", i, g.budget))); err != nil {
				return err
			}
			defer g.stop()
			b.ours = append(b.ours, g)
		}
	}
	if err := r.each(ctx, formats, b.measure); err != nil {
		return err
	}
	return r.write("serving", b.report)
}

// measure makes f of the disk, and has all serve it.
func (b *servingBench) measure(ctx context.Context, f format) error {
	file := filepath.Join(b.dir, f.name)
	if err := f.make(ctx, b.disk, file); err != nil {
		return err
	}
	q := &qemuNBD{}
	if err := q.start(ctx, b.dir, f, file); err != nil {
		return err
	}
	defer q.stop()
	peers := []peer{q.peer()}
	for _, g := range b.ours {
		p, err := g.upload(ctx, f, file)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	b.read = append(b.read, f.name)
	for _, w := range workloads {
		err := b.inTurns(f.name, w.name, names(peers), func(who, round int) (sample, error) {
			return w.measure(ctx, peers[who], b.data, round)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *servingBench) report(w io.Writer) {
	b.heading(w, "Serving one disk over NBD", "bench", fmt.Sprintf(
		"%d MiB of data, unix socket, page cache warm; CPU is the server's user and system time.", b.data>>20))
	for _, wl := range workloads {
		b.results.table(w, b.read, wl, qemuLabel)
	}
}
