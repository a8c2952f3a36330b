package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// randomFormats are those over which small reads are measured.
var randomFormats = []string{"qcow2", "qcow2-zlib", "qcow2-zstd", "vmdk-stream"}

// The daemons' budgets: so that the cluster cache has room for all of the disk, and as
// little as there is.
const (
	largeBudget, smallBudget = "6GiB", "32MiB"
)

// The two things that are measured.
var (
	wholeDisk = workload{name: "The whole disk, in order", rateUnit: "MiB/s", cpuUnit: "s per GiB",
		what: "`glancectl disk bench` and `qemu-img convert -m 8` to a null device; MiB and GiB of data, each process from start to end."}
	hereAndThere = workload{name: "4 KiB here and there", rateUnit: "reads/s", cpuUnit: "µs per read",
		what: "Reads of blocks that hold data, 32 at a time over one NBD connection, after one read of every 32 KiB and an uncounted round. CPU is the server's."}
)

// formatsBench is one run of bench formats.
type formatsBench struct {
	*run
	reads         int
	data          int64    // bytes of the disk that are not holes
	blocks        []int64  // where they are, block by block
	read, skipped []string // formats
}

func benchFormats(ctx context.Context) (err error) {
	r, err := newRun("of 4 GiB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	if err := r.makeDisk(ctx, "--usr"); err != nil {
		return err
	}
	b := &formatsBench{run: r, reads: 40000}
	if r.small {
		b.reads = 2000
	}
	if b.blocks, err = dataBlocks(r.disk); err != nil {
		return err
	}
	b.data = int64(len(b.blocks)) * block
	if err := r.each(ctx, readFormats, b.measure); err != nil {
		return err
	}
	return r.write("formats", b.report)
}

// measure makes f of the disk and measures it, if ours reads such.
func (b *formatsBench) measure(ctx context.Context, f format) error {
	file := filepath.Join(b.dir, "image."+f.name)
	defer os.Remove(file)
	if err := f.make(ctx, b.disk, file); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "bin/glancectl", "disk", "info", "--format", ourName(f), file).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: left out: %s", f.name, out)
		b.skipped = append(b.skipped, f.name)
		return nil
	}
	b.read = append(b.read, f.name)
	info, err := os.Stat(b.disk)
	if err != nil {
		return err
	}
	null := fmt.Sprintf("driver=null-co,size=%d,read-zeroes=on", info.Size())
	commands := map[string][]string{"qemu-img": {"qemu-img", "convert", "-m", "8", "-n", "-f", f.driver, "--target-image-opts", file, null}}
	who := []string{"qemu-img"}
	for _, ours := range builds(b.against) {
		commands[ours.label] = []string{filepath.Join(ours.bin, "glancectl"), "disk", "bench", "--format", ourName(f), "-f", "json", file}
		who = append(who, ours.label)
	}
	err = b.inTurns(f.name, wholeDisk.name, who, func(i, _ int) (sample, error) {
		argv := commands[who[i]]
		return timed(exec.CommandContext(ctx, argv[0], argv[1:]...), b.data)
	})
	if err != nil {
		return err
	}
	if !slices.Contains(randomFormats, f.name) {
		return nil
	}
	return b.inSmall(ctx, f, file)
}

// inSmall measures small reads of what holds data, over NBD.
func (b *formatsBench) inSmall(ctx context.Context, f format, file string) error {
	q := &qemuNBD{}
	if err := q.start(ctx, b.dir, f, file); err != nil {
		return err
	}
	defer q.stop()
	peers := []peer{q.peer()}
	for i, build := range builds(b.against) {
		for _, g := range []*glanced{{build: build, budget: smallBudget, what: ", smallest cache"}, {build: build, budget: largeBudget, what: ", all clusters cached"}} {
			home := filepath.Join(b.dir, fmt.Sprintf("%s-%d-%s", f.name, i, g.budget))
			defer os.RemoveAll(home)
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
	}
	// Once around: every cluster was wanted, and is kept where there is room.
	var around []int64
	for i := 0; i < len(b.blocks); i += 8 {
		around = append(around, b.blocks[i])
	}
	rand.New(rand.NewSource(1)).Shuffle(len(around), func(i, j int) { around[i], around[j] = around[j], around[i] })
	var clients []*client
	for _, p := range peers {
		c, err := dial(p)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		clients = append(clients, c)
		if err := c.readBlocks(around); err != nil {
			return err
		}
	}
	return b.inTurns(f.name, hereAndThere.name, names(peers), func(who, round int) (sample, error) {
		r := rand.New(rand.NewSource(int64(1000 + round)))
		offsets := make([]int64, b.reads)
		for i := range offsets {
			offsets[i] = b.blocks[r.Intn(len(b.blocks))]
		}
		return clients[who].timedReads(offsets)
	})
}

// timedReads reads blocks, and says how many a second and what each cost the server.
func (c *client) timedReads(offsets []int64) (sample, error) {
	before, err := c.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := c.readBlocks(offsets); err != nil {
		return sample{}, err
	}
	wall := time.Since(began).Seconds()
	after, err := c.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	reads := float64(len(offsets))
	return sample{rate: reads / wall, cpu: (after - before) / reads * 1e6}, nil
}

func (b *formatsBench) report(w io.Writer) {
	b.heading(w, "Reading one disk in every format", "bench-formats", fmt.Sprintf("%d MiB of data, page cache warm;", b.data>>20))
	if len(b.skipped) > 0 {
		fmt.Fprintf(w, "Not read, and left out: %s.\n", strings.Join(b.skipped, ", "))
	}
	b.results.table(w, b.read, wholeDisk, "qemu-img")
	b.results.table(w, b.read, hereAndThere, qemuLabel)
}
