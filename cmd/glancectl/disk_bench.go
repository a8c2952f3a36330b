package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func diskBenchCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "time how fast the guest disk can be read", ArgsUsage: "FILE",
		Description: "Reads all that holds data, in order, on all cores. With --random, reads N blocks that hold data, in\n" +
			"an order that --seed decides. What is printed: bytes of the guest disk, reads, seconds, cpu_seconds\n" +
			"(of all cores together) and MiB/s. Whether the file is in the kernel's cache is not its business.\n" +
			readsAll + examples(
			"glancectl disk bench debian-12.qcow2",
			"glancectl disk bench debian-12.qcow2 --random 10000 --cache 0",
			"glancectl disk bench debian-12.qcow2 --random 10000 --cache 2GiB --warm -f json"),
		Flags: append(diskFlags(
			&cli.IntFlag{Name: "random", Usage: "read `N` blocks here and there"},
			&cli.StringFlag{Name: "block", Value: "4096", Usage: "with --random: blocks of `BYTES`"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "with --random: `SEED` decides which blocks"},
			&cli.BoolFlag{Name: "warm", Usage: "do it all once before the clock starts"},
			&cli.StringFlag{Name: "cache", Value: "64MiB", Usage: "keep at most `BYTES` of decoded clusters, as 0, 64MiB, 2GiB"},
			&cli.IntFlag{Name: "workers", Usage: "read and decode on `N` cores (unset = all)"},
		), progressFlags()...),
		Action: func(c *cli.Context) error { return diskBench(c, s) },
	}
}

// benchOptions are the options of bench.
type benchOptions struct {
	random  int // 0 = in order
	block   int64
	seed    uint64
	warm    bool
	cache   int64
	workers int
}

const maxBlock = 64 << 20 // bytes of one random read

func benchOptionsOf(c *cli.Context) (benchOptions, error) {
	o := benchOptions{random: c.Int("random"), seed: c.Uint64("seed"), warm: c.Bool("warm"), workers: c.Int("workers")}
	var err error
	if o.block, err = parseSize(c.String("block")); err != nil || o.block < 1 || o.block > maxBlock {
		return o, usagef(c, "--block %q is not a size from 1 to 64MiB", c.String("block"))
	}
	if o.cache, err = parseSize(c.String("cache")); err != nil {
		return o, usagef(c, "--cache %v", err)
	}
	if c.IsSet("random") && o.random < 1 {
		return o, usagef(c, "--random %d is below 1", o.random)
	}
	for _, name := range []string{"block", "seed"} {
		if c.IsSet(name) && !c.IsSet("random") {
			return o, usagef(c, "--%s is for --random", name)
		}
	}
	const most = 1024
	if c.IsSet("workers") && (o.workers < 1 || o.workers > most) {
		return o, usagef(c, "--workers %d is not from 1 to %d", o.workers, most)
	}
	if o.workers == 0 {
		o.workers = runtime.GOMAXPROCS(0)
	}
	return o, nil
}

// parseSize reads a number of bytes, written "512MiB" (KiB, MiB, GiB, TiB) or plain.
func parseSize(text string) (int64, error) {
	s, shift := strings.TrimSpace(text), 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			s, shift = strings.TrimSpace(rest), 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size: write it like 512MiB", text)
	}
	return n << shift, nil
}

func diskBench(c *cli.Context, s streams) error {
	args, err := arguments(c, "FILE")
	if err != nil {
		return err
	}
	p, err := newPrinter(c, s)
	if err != nil {
		return err
	}
	o, err := diskOptionsOf(c)
	if err != nil {
		return err
	}
	b, err := benchOptionsOf(c)
	if err != nil {
		return err
	}
	e := diskEngine()
	e.CacheBytes, e.Workers = b.cache, b.workers
	d, err := openDisk(c.Context, args[0], o, e)
	if err != nil {
		return err
	}
	defer d.close()
	if err := refuseDigests(c, s, d); err != nil {
		return err
	}
	g, err := d.guest(c.Context)
	if err != nil {
		return err
	}
	defer g.Close()

	job, total, err := benchJob(c.Context, g, b)
	if err != nil {
		return fmt.Errorf("%s: %w", d.name(), err)
	}
	if b.warm {
		if _, err := job(c.Context, nil); err != nil {
			return fmt.Errorf("%s: %w", d.name(), err)
		}
	}
	bar := startProgress(c, s, "read", total)
	start, cpu := time.Now(), cpuTime()
	done, err := job(c.Context, bar)
	seconds, cpuSeconds := time.Since(start).Seconds(), (cpuTime() - cpu).Seconds()
	bar.finish()
	if err != nil {
		return fmt.Errorf("%s: %w", d.name(), err)
	}
	rate := float64(done.bytes) / (1 << 20) / seconds
	return p.one(record{
		{name: "bytes", value: done.bytes, text: exactBytes(done.bytes)},
		{name: "reads", value: done.reads},
		{name: "seconds", value: seconds, text: fmt.Sprintf("%.3f", seconds)},
		{name: "cpu_seconds", value: cpuSeconds, text: fmt.Sprintf("%.3f", cpuSeconds)},
		{name: "mib_per_s", value: rate, text: fmt.Sprintf("%.1f", rate)},
	})
}

// cpuTime is what this process has used of all cores so far, in user and kernel.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
