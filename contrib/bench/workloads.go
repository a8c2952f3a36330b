package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// sample is one run: a rate and the server's CPU, each in its workload's unit.
type sample struct{ rate, cpu float64 }

// workload is one way to use a disk.
type workload struct {
	name, what        string
	rateUnit, cpuUnit string
	measure           func(ctx context.Context, p peer, data int64, round int) (sample, error)
}

var workloads = []workload{
	{"sequential copy", "`nbdcopy URI null:` (4 connections, holes not shipped), again and again for 2 s; MiB and GiB of data.", "MiB/s", "s per GiB", copyAll},
	{"random 4 KiB reads", "`fio --ioengine=nbd --rw=randread --bs=4k --iodepth=32`, one connection, the whole disk.", "reads/s", "µs per read", readRandom},
}

func copyAll(ctx context.Context, p peer, data int64, _ int) (sample, error) {
	before, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	copies := 0.0
	began := time.Now()
	for time.Since(began) < leastCopying {
		cmd := exec.CommandContext(ctx, "nbdcopy", p.uri(), "null:")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return sample{}, fmt.Errorf("nbdcopy: %w", err)
		}
		copies++
	}
	gib := copies * float64(data) / (1 << 30)
	wall := time.Since(began).Seconds()
	after, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	return sample{rate: gib * 1024 / wall, cpu: (after - before) / gib}, nil
}

// leastCopying is how long the disk is copied again and again: the kernel counts
// CPU time in hundredths of a second.
const leastCopying = 2 * time.Second

// randomReads is how many reads one run makes: some seconds on the slowest peer.
const randomReads = 40000

func readRandom(ctx context.Context, p peer, _ int64, round int) (sample, error) {
	return fio(ctx, p, round, "--iodepth=32", "--number_ios="+strconv.Itoa(randomReads))
}

// fio reads 4 KiB here and there over all of the disk, on one connection.
func fio(ctx context.Context, p peer, round int, args ...string) (sample, error) {
	before, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, "fio", append([]string{"--name=random", "--ioengine=nbd", "--uri=" + p.uri(), "--rw=randread", "--bs=4k",
		"--norandommap", "--randseed=" + strconv.Itoa(1000+round), "--output-format=json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("fio: %w", err)
	}
	after, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	var result struct {
		Jobs []struct {
			Read struct {
				IOPS     float64 `json:"iops"`
				TotalIOs float64 `json:"total_ios"`
			} `json:"read"`
		} `json:"jobs"`
	}
	out = out[max(0, bytes.IndexByte(out, '{')):] // the engine greets first
	if err := json.Unmarshal(out, &result); err != nil || len(result.Jobs) != 1 || result.Jobs[0].Read.TotalIOs == 0 {
		return sample{}, fmt.Errorf("fio's report is not as expected (%v): %.200s", err, out)
	}
	r := result.Jobs[0].Read
	return sample{rate: r.IOPS, cpu: (after - before) / r.TotalIOs * 1e6}, nil
}
