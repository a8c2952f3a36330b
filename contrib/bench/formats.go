package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// randomFormats are those over which small reads are measured.
var randomFormats = []string{"qcow2", "qcow2-zlib", "qcow2-zstd", "vmdk-stream"}

// The daemons' budgets: so that the cluster cache gets 2 GiB, and as little as there is.
const (
	largeBudget, smallBudget = "4600MiB", "32MiB"
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
	rounds, reads int
	data          int64   // bytes of the disk that are not holes
	blocks        []int64 // where they are, block by block
	builds        []build
	results       *results
	read, skipped []string // formats
}

func benchFormats(ctx context.Context) (err error) {
	disk := flag.String("disk", "", "raw `FILE` to read; none: one of 4 GiB is made")
	small := flag.Bool("small", false, "a small disk, one round, few reads: to see that it runs")
	rounds := flag.Int("rounds", 5, "alternating rounds")
	only := flag.String("formats", "", "comma-separated `NAMES`; none: all")
	against := flag.String("against", "", "`DIR` with the programs of another build of ours")
	out := flag.String("out", "", "Markdown `FILE` to write; none: contrib/bench/results/formats-DATE.md (with --small: none)")
	flag.Parse()
	b := &formatsBench{rounds: *rounds, reads: 40000, builds: builds(*against), results: newResults()}
	variant := "--usr"
	if *small {
		b.rounds, b.reads, variant = 1, 2000, "--small"
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
	if b.blocks, err = dataBlocks(*disk); err != nil {
		return err
	}
	b.data = int64(len(b.blocks)) * block
	for _, f := range readFormats {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), f.name) {
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
	return writeReport(*out, "formats-", b.report)
}

// measure makes f of disk and measures it, if ours reads such.
func (b *formatsBench) measure(ctx context.Context, dir, disk string, f format) error {
	file := filepath.Join(dir, "image."+f.name)
	defer os.Remove(file)
	if err := f.make(ctx, disk, file); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "bin/glancectl", "disk", "info", "--format", ourName(f), file).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: left out: %s", f.name, out)
		b.skipped = append(b.skipped, f.name)
		return nil
	}
	b.read = append(b.read, f.name)
	info, err := os.Stat(disk)
	if err != nil {
		return err
	}
	null := fmt.Sprintf("driver=null-co,size=%d,read-zeroes=on", info.Size())
	commands := map[string][]string{"qemu-img": {"qemu-img", "convert", "-m", "8", "-n", "-f", f.driver, "--target-image-opts", file, null}}
	who := []string{"qemu-img"}
	for _, ours := range b.builds {
		commands[ours.label] = []string{filepath.Join(ours.bin, "glancectl"), "disk", "bench", "--format", ourName(f), "-f", "json", file}
		who = append(who, ours.label)
	}
	for round := -1; round < b.rounds; round++ { // round -1 warms up and is not counted
		for _, name := range who {
			s, err := b.whole(ctx, commands[name])
			if err != nil {
				return err
			}
			if round >= 0 {
				b.results.add(key{f.name, wholeDisk.name, name}, s)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "%s sequential done\n", f.name)
	if !slices.Contains(randomFormats, f.name) {
		return nil
	}
	err = b.small(ctx, dir, f, file)
	fmt.Fprintf(os.Stderr, "%s random done\n", f.name)
	return err
}

// whole runs a command that reads all of the disk: MiB of data a second, and CPU
// seconds a GiB, of the whole process.
func (b *formatsBench) whole(ctx context.Context, argv []string) (sample, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	wall := time.Since(began).Seconds()
	cpu := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return sample{rate: float64(b.data) / (1 << 20) / wall, cpu: cpu / (float64(b.data) / (1 << 30))}, nil
}

// small measures small reads of what holds data, over NBD.
func (b *formatsBench) small(ctx context.Context, dir string, f format, file string) error {
	q := &qemuNBD{}
	if err := q.start(ctx, dir, f, file); err != nil {
		return err
	}
	defer q.stop()
	peers := []peer{q.peer()}
	for i, build := range b.builds {
		for _, g := range []*glanced{{build: build, budget: smallBudget, what: ", smallest cache"}, {build: build, budget: largeBudget, what: ", 2 GiB of clusters"}} {
			home := filepath.Join(dir, fmt.Sprintf("%s-%d-%s", f.name, i, g.budget))
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
	for round := -1; round < b.rounds; round++ {
		r := rand.New(rand.NewSource(int64(1000 + round)))
		offsets := make([]int64, b.reads)
		for i := range offsets {
			offsets[i] = b.blocks[r.Intn(len(b.blocks))]
		}
		for _, c := range clients {
			before, err := c.cpuSeconds()
			if err != nil {
				return err
			}
			began := time.Now()
			if err := c.readBlocks(offsets); err != nil {
				return err
			}
			wall := time.Since(began).Seconds()
			after, err := c.cpuSeconds()
			if err != nil {
				return err
			}
			if round < 0 {
				continue
			}
			b.results.add(key{f.name, hereAndThere.name, c.name}, sample{rate: float64(b.reads) / wall, cpu: (after - before) / float64(b.reads) * 1e6})
		}
	}
	return nil
}

func (b *formatsBench) report(w io.Writer) {
	fmt.Fprintf(w, "# Reading one disk in every format, %s\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(w, "%d MiB of data, %d CPUs, page cache warm, medians of %d alternating rounds. Written by `make bench-formats`.\n", b.data>>20, runtime.NumCPU(), b.rounds)
	if len(b.skipped) > 0 {
		fmt.Fprintf(w, "Not read, and left out: %s.\n", strings.Join(b.skipped, ", "))
	}
	b.results.table(w, b.read, wholeDisk, "qemu-img")
	b.results.table(w, b.read, hereAndThere, qemuLabel)
}
