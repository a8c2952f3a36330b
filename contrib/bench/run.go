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

// run is what every measurement has: its flags, a folder, the disk, and results.
type run struct {
	rounds  int
	small   bool
	disk    string // raw
	only    string // formats
	goals   string // of bench stores
	against string
	out     string
	cold    bool // nothing may be warm: there is no round to warm up

	dir     string
	results *results
}

// newRun parses the flags. made is the disk that is made where none is given. The
// caller removes the folder by end.
func newRun(made string) (*run, error) {
	r := &run{results: newResults()}
	flag.StringVar(&r.disk, "disk", "", "raw `FILE` to read; none: one is made, "+made)
	flag.BoolVar(&r.small, "small", false, "a small disk, one round, short runs: to see that it runs")
	flag.IntVar(&r.rounds, "rounds", 5, "alternating rounds")
	flag.StringVar(&r.only, "formats", "", "comma-separated `NAMES`; none: all")
	flag.StringVar(&r.goals, "only", "", "bench stores: comma-separated `GOALS`; none: all, in turn")
	flag.StringVar(&r.against, "against", "", "`DIR` with the programs of another build of ours")
	flag.StringVar(&r.out, "out", "", "Markdown `FILE` to write; none: contrib/bench/results (with --small: none)")
	flag.Parse()
	if r.small {
		r.rounds = 1
	}
	if r.rounds < 1 {
		return nil, fmt.Errorf("%d rounds", r.rounds)
	}
	var err error
	r.dir, err = os.MkdirTemp("", "glanced-bench-")
	return r, err
}

func (r *run) end() error { return os.RemoveAll(r.dir) }

// makeDisk makes the disk, where none was given: the variant of contrib/demo/make-disk.sh,
// or the small one.
func (r *run) makeDisk(ctx context.Context, variant string) error {
	if r.disk != "" {
		return nil
	}
	if r.small {
		variant = "--small"
	}
	r.disk = filepath.Join(r.dir, "disk.raw")
	return command(ctx, "contrib/demo/make-disk.sh", variant, r.disk)
}

// each measures the formats of all that are wanted.
func (r *run) each(ctx context.Context, all []format, measure func(context.Context, format) error) error {
	measured := 0
	for _, f := range all {
		if r.only != "" && !slices.Contains(strings.Split(r.only, ","), f.name) {
			continue
		}
		if err := measure(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		measured++
	}
	if measured == 0 {
		return fmt.Errorf("none of the formats is one of %q", r.only)
	}
	return nil
}

// goal is something to be measured by itself.
type goal struct {
	name    string
	measure func(context.Context) error
}

// reach measures the goals of all that are wanted.
func (r *run) reach(ctx context.Context, all []goal) error {
	var known []string
	for _, g := range all {
		known = append(known, g.name)
	}
	wanted := known
	if r.goals != "" {
		wanted = strings.Split(r.goals, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no goal %q; known are %s", name, strings.Join(known, ", "))
		}
	}
	for _, g := range all {
		if !slices.Contains(wanted, g.name) {
			continue
		}
		if err := g.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	return nil
}

// inTurns has those of who measure one after the other, round after round. Unless the
// run is cold, the first round, -1, warms up and is not counted.
func (r *run) inTurns(format, workload string, who []string, measure func(who, round int) (sample, error)) error {
	first := -1
	if r.cold {
		first = 0
	}
	for round := first; round < r.rounds; round++ {
		for i, name := range who {
			s, err := measure(i, round)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", workload, name, err)
			}
			if round >= 0 {
				r.results.add(key{format, workload, name}, s)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %s done\n", format, workload)
	return nil
}

// heading is the first lines of a report; what says what was measured.
func (r *run) heading(w io.Writer, title, target, what string) {
	fmt.Fprintf(w, "# %s, %s\n\n", title, time.Now().UTC().Format("2006-01-02"))
	warmUp := " after a warm-up"
	if r.cold {
		warmUp = ""
	}
	fmt.Fprintf(w, "%s %d CPUs. Medians of %d alternating rounds%s; ± is half of the rounds' range. Written by `make %s`.\n",
		what, runtime.NumCPU(), r.rounds, warmUp, target)
}

// write has a report written to standard output and to its file, which is
// contrib/bench/results/NAME-DATE.md where none was given. The figures of a small run,
// or of some goals only, are not kept.
func (r *run) write(name string, report func(io.Writer)) (err error) {
	if (r.small || r.goals != "") && r.out == "" {
		report(os.Stdout)
		return nil
	}
	if r.out == "" {
		r.out = filepath.Join("contrib/bench/results", name+"-"+time.Now().UTC().Format("2006-01-02")+".md")
	}
	if err := os.MkdirAll(filepath.Dir(r.out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(r.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	report(io.MultiWriter(os.Stdout, f))
	return f.Sync()
}

func names(peers []peer) []string {
	var all []string
	for _, p := range peers {
		all = append(all, p.name)
	}
	return all
}
