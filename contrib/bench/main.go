// Command bench measures ours and qemu's tools side by side: the same disk in
// several formats, in turns within one run. It prints medians and ratios and
// writes them to a Markdown file. It only measures; it judges nothing.
//
//	bench [FLAGS]           glanced and qemu-nbd serve a disk to the same NBD clients
//	bench formats [FLAGS]   glancectl and qemu-img read a disk, and what small reads cost
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// format is one shape of the disk; args are qemu-img convert's.
type format struct {
	name, driver string
	args         []string
}

var formats = []format{
	{"raw", "raw", []string{"-O", "raw"}},
	{"qcow2", "qcow2", []string{"-O", "qcow2"}},
	{"qcow2-zlib", "qcow2", []string{"-c", "-O", "qcow2"}},
	{"qcow2-zstd", "qcow2", []string{"-c", "-O", "qcow2", "-o", "compression_type=zstd"}},
	{"vmdk", "vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicSparse"}},
	{"vmdk-stream", "vmdk", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}},
}

// key is one cell of the result.
type key struct{ format, workload, peer string }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	measure := benchServing
	if len(os.Args) > 1 && os.Args[1] == "formats" {
		measure = benchFormats
		os.Args = slices.Delete(os.Args, 1, 2)
	}
	if err := measure(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func benchServing(ctx context.Context) error {
	disk := flag.String("disk", "", "raw `FILE` to serve; none: one is made")
	rounds := flag.Int("rounds", 5, "alternating rounds")
	only := flag.String("formats", "", "comma-separated `NAMES`; none: all")
	out := flag.String("out", "", "Markdown `FILE` to write; none: contrib/bench/results/DATE.md")
	flag.Parse()
	return run(ctx, *disk, *rounds, *only, *out)
}

func run(ctx context.Context, disk string, rounds int, only, out string) (err error) {
	dir, err := os.MkdirTemp("", "glanced-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if disk == "" {
		disk = filepath.Join(dir, "disk.raw")
		if err := command(ctx, "contrib/demo/make-disk.sh", "--small", disk); err != nil {
			return err
		}
	}
	var chosen []format
	for _, f := range formats {
		if only == "" || slices.Contains(strings.Split(only, ","), f.name) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 || rounds < 1 {
		return fmt.Errorf("nothing to measure: formats %q, %d rounds", only, rounds)
	}
	data, err := allocated(disk)
	if err != nil {
		return err
	}

	// Two daemons: one as installed, one whose budget leaves next to nothing for decoded clusters.
	var ours []*glanced
	for _, g := range []*glanced{{label: "glanced", budget: "2GiB"}, {label: "glanced, no cluster cache", budget: "32MiB"}} {
		if err := g.start(ctx, filepath.Join(dir, fmt.Sprintf("g%d", len(ours)))); err != nil {
			return err
		}
		defer g.stop()
		ours = append(ours, g)
	}

	results := map[key][]sample{}
	for _, f := range chosen {
		file := filepath.Join(dir, f.name)
		if err := command(ctx, "qemu-img", append(append([]string{"convert"}, f.args...), "-f", "raw", disk, file)...); err != nil {
			return err
		}
		q := &qemuNBD{}
		if err := q.start(ctx, dir, f, file); err != nil {
			return err
		}
		peers := []peer{q.peer()}
		for _, g := range ours {
			p, err := g.upload(ctx, f, file)
			if err != nil {
				return errors.Join(err, q.stop())
			}
			peers = append(peers, p)
		}
		for _, w := range workloads {
			for round := -1; round < rounds; round++ { // round -1 warms up and is not counted
				for _, p := range peers {
					s, err := w.measure(ctx, p, data, round)
					if err != nil {
						return errors.Join(fmt.Errorf("%s, %s, %s: %w", f.name, w.name, p.name, err), q.stop())
					}
					if round >= 0 {
						k := key{f.name, w.name, p.name}
						results[k] = append(results[k], s)
					}
				}
			}
			fmt.Fprintf(os.Stderr, "%s %s done\n", f.name, w.name)
		}
		if err := q.stop(); err != nil {
			return err
		}
	}

	if out == "" {
		out = filepath.Join("contrib/bench/results", time.Now().UTC().Format("2006-01-02")+".md")
	}
	return writeReport(out, func(w io.Writer) { report(w, chosen, results, data, rounds) })
}

// writeReport has a report written to file and to standard output.
func writeReport(file string, report func(io.Writer)) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	report(io.MultiWriter(os.Stdout, f))
	return f.Sync()
}

// report prints a table a workload: medians, and ours over theirs.
func report(w io.Writer, chosen []format, results map[key][]sample, data int64, rounds int) {
	fmt.Fprintf(w, "# Serving one disk over NBD, %s\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(w, "%d MiB of data, %d CPUs, unix socket, page cache warm, medians of %d alternating rounds after a warm-up.\n", data>>20, runtime.NumCPU(), rounds)
	fmt.Fprintf(w, "CPU is the server's user and system time. Written by `make bench`.\n")
	for _, wl := range workloads {
		fmt.Fprintf(w, "\n## %s\n\n%s\n\n", wl.name, wl.what)
		fmt.Fprintf(w, "| format | server | %s | CPU %s | rate / qemu-nbd | CPU / qemu-nbd |\n|---|---|---|---|---|---|\n", wl.rateUnit, wl.cpuUnit)
		for _, f := range chosen {
			base := median(results[key{f.name, wl.name, "qemu-nbd"}])
			for _, p := range []string{"qemu-nbd", "glanced", "glanced, no cluster cache"} {
				m := median(results[key{f.name, wl.name, p}])
				fmt.Fprintf(w, "| %s | %s | %.0f | %.3g | %.2f | %.2f |\n", f.name, p, m.rate, m.cpu, m.rate/base.rate, m.cpu/base.cpu)
			}
		}
	}
}

// median takes each figure's own median; of nothing it is NaN.
func median(s []sample) sample {
	pick := func(get func(sample) float64) float64 {
		if len(s) == 0 {
			return math.NaN()
		}
		v := make([]float64, len(s))
		for i := range s {
			v[i] = get(s[i])
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	return sample{rate: pick(func(s sample) float64 { return s.rate }), cpu: pick(func(s sample) float64 { return s.cpu })}
}

// allocated is how many bytes of a sparse file are not holes.
func allocated(path string) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Blocks * 512, nil
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
