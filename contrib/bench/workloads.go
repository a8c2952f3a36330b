package main

import (
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
	{"sequential copy", "`nbdcopy URI null:` (4 connections, holes not shipped); MiB/s of data.", "MiB/s", "s", copyAll},
	{"random 4 KiB reads", "`fio --ioengine=nbd --rw=randread --bs=4k --iodepth=32`, one connection, the whole disk.", "reads/s", "µs per read", readRandom},
}

func copyAll(ctx context.Context, p peer, data int64, _ int) (sample, error) {
	before, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, "nbdcopy", p.uri, "null:")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("nbdcopy: %w", err)
	}
	wall := time.Since(began).Seconds()
	after, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	return sample{rate: float64(data) / (1 << 20) / wall, cpu: after - before}, nil
}

// randomReads is how many reads one run makes: some seconds on the slowest peer.
const randomReads = 40000

func readRandom(ctx context.Context, p peer, _ int64, round int) (sample, error) {
	before, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, "fio", "--name=random", "--ioengine=nbd", "--uri="+p.uri, "--rw=randread", "--bs=4k",
		"--iodepth=32", "--norandommap", "--randseed="+strconv.Itoa(1000+round), "--number_ios="+strconv.Itoa(randomReads), "--output-format=json")
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
	if err := json.Unmarshal(out, &result); err != nil || len(result.Jobs) != 1 || result.Jobs[0].Read.TotalIOs == 0 {
		return sample{}, fmt.Errorf("fio's report is not as expected (%v): %.200s", err, out)
	}
	r := result.Jobs[0].Read
	return sample{rate: r.IOPS, cpu: (after - before) / r.TotalIOs * 1e6}, nil
}
