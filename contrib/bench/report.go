package main

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// key is one cell of the result.
type key struct{ format, workload, peer string }

// results are the samples of each cell, and who took part, in order.
type results struct {
	samples map[key][]sample
	peers   []string
}

func newResults() *results { return &results{samples: map[key][]sample{}} }

func (r *results) add(k key, s sample) {
	r.samples[k] = append(r.samples[k], s)
	if !slices.Contains(r.peers, k.peer) {
		r.peers = append(r.peers, k.peer)
	}
}

// table prints one workload, if it was measured: a line for each format and peer, with
// its ratios to the peer base.
func (r *results) table(w io.Writer, formats []string, wl workload, base string) {
	if !slices.ContainsFunc(formats, func(f string) bool {
		return slices.ContainsFunc(r.peers, func(p string) bool { return len(r.samples[key{f, wl.name, p}]) > 0 })
	}) {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n", wl.name, wl.what)
	fmt.Fprintf(w, "| format | who | %s | ± %% | CPU %s | rate / %s | CPU / %s |\n|---|---|---|---|---|---|---|\n", wl.rateUnit, wl.cpuUnit, base, base)
	for _, f := range formats {
		b := median(r.samples[key{f, wl.name, base}])
		for _, p := range r.peers {
			all := r.samples[key{f, wl.name, p}]
			if len(all) == 0 {
				continue
			}
			m := median(all)
			fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | %.3g | %.2f | %.2f |\n", f, p, m.rate, 100*spread(all), m.cpu, m.rate/b.rate, m.cpu/b.cpu)
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

// spread is how far the rounds' rates lie apart: half of the way from the lowest to
// the highest, as a part of the median.
func spread(s []sample) float64 {
	low, high := math.Inf(1), math.Inf(-1)
	for _, x := range s {
		low, high = min(low, x.rate), max(high, x.rate)
	}
	return (high - low) / 2 / median(s).rate
}
