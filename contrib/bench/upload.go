package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var uploads = workload{name: "An upload", rateUnit: "MiB/s", cpuUnit: "s per GiB",
	what: "The raw disk, sent to the S3 server: by minio-go alone, with MD5 and SHA-512 of the stream made beside it (contrib/bench/minioput), " +
		"and by `glancectl image create`. CPU is minio-go's program's, and the daemon's."}

// minioName is minio-go in the tables.
const minioName = "minio-go, MD5, SHA-512"

// upload has a disk sent to the far store, by minio-go and through ours, and looks at
// what the sender holds in memory at the most.
func (b *storesBench) upload(ctx context.Context, trip time.Duration) error {
	program := filepath.Join(b.dir, "minioput")
	if err := command(ctx, "go", "build", "-C", "contrib/bench/minioput", "-o", program, "."); err != nil {
		return err
	}
	if err := readFile(b.disk); err != nil {
		return err
	}
	b.far.Move(trip)
	row := fmt.Sprintf("raw, %d ms", trip.Milliseconds())
	peaks := [2]int{}
	err := b.inTurns(row, uploads.name, []string{minioName, "glanced"}, func(who, _ int) (s sample, err error) {
		var peak int
		if who == 0 {
			s, peak, err = b.putByMinio(ctx, program)
		} else {
			s, peak, err = b.putByOurs(ctx)
		}
		peaks[who] = max(peaks[who], peak)
		return s, err
	})
	if err != nil {
		return err
	}
	b.rows = append(b.rows, fmt.Sprintf("While %d MiB were uploaded (%s), the program with minio-go held %d MiB of memory at the most; the daemon %d MiB more than before.",
		b.size>>20, row, peaks[0], peaks[1]))
	return nil
}

// putByMinio is one upload by minio-go, and the most memory that its program held, MiB.
func (b *storesBench) putByMinio(ctx context.Context, program string) (sample, int, error) {
	cmd := exec.CommandContext(ctx, program, b.far.Addr(), bucket, "by-minio", b.disk)
	cmd.Env = append(os.Environ(), "ACCESS_KEY="+accessKey, "SECRET_KEY="+secretKey)
	s, err := timed(cmd, b.size)
	if err != nil {
		return s, 0, err
	}
	return s, int(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10), os.Remove(filepath.Join(b.dir, "objects", bucket, "by-minio"))
}

// putByOurs is one upload through the daemon, and how much its memory grew, MiB.
func (b *storesBench) putByOurs(ctx context.Context) (sample, int, error) {
	daemon := peer{pid: b.ours.pid()}
	before, err := residentMiB(daemon.pid)
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", daemon.pid), []byte("5"), 0) // the peak begins anew
	}
	if err != nil {
		return sample{}, 0, err
	}
	cpu, err := daemon.cpuSeconds()
	if err != nil {
		return sample{}, 0, err
	}
	began := time.Now()
	far, err := b.ours.upload(ctx, formats[0], b.disk)
	if err != nil {
		return sample{}, 0, err
	}
	wall := time.Since(began).Seconds()
	after, err := daemon.cpuSeconds()
	if err != nil {
		return sample{}, 0, err
	}
	peak, err := statusMiB(daemon.pid, "VmHWM:")
	if err != nil {
		return sample{}, 0, err
	}
	s := sample{rate: float64(b.size) / (1 << 20) / wall, cpu: (after - cpu) / (float64(b.size) / (1 << 30))}
	return s, peak - before, b.ours.ctl(ctx, "image", "delete", strings.TrimSpace(far.export))
}
