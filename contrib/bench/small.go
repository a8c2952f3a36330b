package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// notSmall are the formats whose small reads bench formats measures: elsewhere bytes are
// served as they lie in the file, and what a small read costs is all the server's own.
var notSmall = []string{"qcow2-zlib", "qcow2-zstd", "vmdk-stream"}

// smallBench is one run of bench small.
type smallBench struct {
	*run
	seconds float64 // of each run of fio
	data    int64   // bytes of the disk that are not holes
	size    int64
	read    []string // formats
}

// depths are how many reads are under way at once.
var depths = []int{1, 32}

func atDepth(n int) workload {
	return workload{name: fmt.Sprintf("Depth %d", n), rateUnit: "reads/s", cpuUnit: "µs per read",
		what: fmt.Sprintf("`fio --ioengine=nbd --rw=randread --bs=4k --iodepth=%d`, one connection, all of the disk, holes too. CPU is the server's.", n)}
}

func benchSmall(ctx context.Context) (err error) {
	r, err := newRun("of 4 GiB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	if err := r.makeDisk(ctx, "--usr"); err != nil {
		return err
	}
	b := &smallBench{run: r, seconds: 3}
	if r.small {
		b.seconds = 0.2
	}
	info, err := os.Stat(r.disk)
	if err != nil {
		return err
	}
	b.size = info.Size()
	if b.data, err = allocated(r.disk); err != nil {
		return err
	}
	all := slices.DeleteFunc(slices.Clone(readFormats), func(f format) bool { return slices.Contains(notSmall, f.name) })
	if err := r.each(ctx, all, b.measure); err != nil {
		return err
	}
	return r.write("small", b.report)
}

// measure makes f of the disk, and has all serve it.
func (b *smallBench) measure(ctx context.Context, f format) error {
	file := filepath.Join(b.dir, "image."+f.name)
	defer os.Remove(file)
	if err := f.make(ctx, b.disk, file); err != nil {
		return err
	}
	q := &qemuNBD{}
	if err := q.start(ctx, b.dir, f, file); err != nil {
		return err
	}
	defer q.stop()
	peers := []peer{q.peer()}
	if f.name == "raw" {
		n := &nbdkit{}
		if err := n.start(ctx, b.dir, file); err != nil {
			return err
		}
		defer n.stop()
		peers = append(peers, n.peer())
	}
	for i, build := range builds(b.against) {
		home := filepath.Join(b.dir, fmt.Sprintf("%s-%d", f.name, i))
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
		err := b.inTurns(f.name, atDepth(n).name, names(peers), func(who, round int) (sample, error) {
			return fio(ctx, peers[who], round, "--iodepth="+strconv.Itoa(n), "--time_based", fmt.Sprintf("--runtime=%gms", b.seconds*1000))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *smallBench) report(w io.Writer) {
	b.heading(w, "Small reads over NBD", "bench-small", fmt.Sprintf(
		"A disk of %d MiB, %d of them data, unix socket, every copy read beforehand;", b.size>>20, b.data>>20))
	for _, n := range depths {
		b.results.table(w, b.read, atDepth(n), qemuLabel)
	}
}
