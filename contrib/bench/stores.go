package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"glanced/contrib/distance"
)

// The distance, the same for every contender: with this window a connection moves about
// 50 MB a second at this round trip.
const (
	farTrip = 20 * time.Millisecond
	window  = 1 << 20
)

// storesBench is one run of bench stores: images lie in an S3 server, behind a distance.
type storesBench struct {
	*run
	data  int64 // bytes of the disk that are not holes
	size  int64
	far   *distance.Proxy
	gw    *gateway
	ours  *glanced
	local *glanced // the same images in a local folder
	rows  []string // of the report, beside the tables

	rawFar, rawLocal peer // the raw image, once stored
}

// goals are what can be measured, by the names of -only, in the order in which they are.
func (b *storesBench) goals() []goal {
	return []goal{
		{"first-mib", b.firstMiB},
		{"cold-raw", func(ctx context.Context) error { return b.coldRaw(ctx, farTrip) }},
		{"cold-raw-near", func(ctx context.Context) error { return b.coldRaw(ctx, 0) }},
		{"warm-raw", b.warmRaw},
		{"cold-zlib", b.coldZlib},
		{"readers", b.manyReaders},
		{"images", b.manyImages},
		{"upload", func(ctx context.Context) error { return b.upload(ctx, farTrip) }},
		{"upload-near", func(ctx context.Context) error { return b.upload(ctx, 0) }},
	}
}

// The workloads; their rows are trips, or who serves what.
var (
	firstRead = workload{name: "The first MiB", rateUnit: "reads/s", cpuUnit: "s per read",
		what: "A daemon that has just started, nothing cached: `qemu-io` opens the export and reads 1 MiB. CPU is the daemon's."}
	coldRaw = workload{name: "A raw image, cold", rateUnit: "MiB/s", cpuUnit: "s per GiB",
		what: "One `curl` of the object, and `nbdcopy URI null:` with nothing cached; MiB of the whole disk. CPU is the server's, curl's of itself."}
	coldZlib = workload{name: "A zlib qcow2, cold", rateUnit: "MiB/s", cpuUnit: "s per GiB",
		what: "`qemu-img convert` through qemu's curl driver, `nbdcopy` from qemu-nbd over nbdkit's curl plugin, and `nbdcopy URI null:` from ours with nothing cached; MiB of guest data."}
	warmRaw = workload{name: "A raw image, warm", rateUnit: "MiB/s", cpuUnit: "s per GiB",
		what: "`nbdcopy URI null:` of an image that is cached, and of one that lies in a local folder; MiB of the whole disk."}
)

func benchStores(ctx context.Context) (err error) {
	r, err := newRun("of 4 GiB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	if err := r.makeDisk(ctx, "--usr"); err != nil {
		return err
	}
	b := &storesBench{run: r}
	if b.data, err = allocated(r.disk); err != nil {
		return err
	}
	info, err := os.Stat(r.disk)
	if err != nil {
		return err
	}
	b.size = info.Size()
	if b.gw, err = startGateway(ctx, filepath.Join(r.dir, "objects")); err != nil {
		return err
	}
	defer b.gw.stop()
	if b.far, err = distance.Listen(b.gw.addr, 0, window); err != nil {
		return err
	}
	defer b.far.Close()
	b.ours = &glanced{build: build{"glanced", "bin"}, budget: "512MiB", store: b.gw.store(b.far.Addr())}
	b.local = &glanced{build: build{"glanced, local folder", "bin"}, budget: "512MiB"}
	for name, g := range map[string]*glanced{"far": b.ours, "local": b.local} {
		if err := g.start(ctx, filepath.Join(r.dir, name)); err != nil {
			return err
		}
		defer g.stop()
	}
	if err := r.reach(ctx, b.goals()); err != nil {
		return err
	}
	return r.write("stores", b.report)
}

// stored puts an image into the far store, near as it is now, and into the local one.
func (b *storesBench) stored(ctx context.Context, f format) (far, local peer, file string, err error) {
	b.far.Move(0)
	file = filepath.Join(b.dir, "image."+f.name)
	if err = f.make(ctx, b.disk, file); err != nil {
		return
	}
	if local, err = b.local.upload(ctx, f, file); err != nil {
		return
	}
	far, err = b.ours.upload(ctx, f, file)
	return
}

// cold has a round begin with nothing cached, and the daemon at a distance.
func (b *storesBench) cold(ctx context.Context, p peer, trip time.Duration) error {
	b.far.Move(trip)
	return b.ours.ctl(ctx, "cache", "evict", p.export)
}

// raw is the raw image, in the far store and in the local one.
func (b *storesBench) raw(ctx context.Context) (far, local peer, err error) {
	if b.rawFar.export == "" {
		b.rawFar, b.rawLocal, _, err = b.stored(ctx, formats[0])
	}
	b.rawFar.pid = b.ours.pid() // it may have been started anew
	return b.rawFar, b.rawLocal, err
}

func (b *storesBench) firstMiB(ctx context.Context) error {
	far, _, err := b.raw(ctx)
	if err != nil {
		return err
	}
	return b.inTurns("raw, 20 ms", firstRead.name, []string{"glanced"}, func(int, int) (sample, error) {
		if err := b.cold(ctx, far, farTrip); err != nil {
			return sample{}, err
		}
		b.ours.stop()
		if err := b.ours.again(ctx); err != nil {
			return sample{}, err
		}
		began := time.Now()
		if err := quietly(exec.CommandContext(ctx, "qemu-io", "-r", "-f", "raw", "-c", "read 0 1M", far.uri())); err != nil {
			return sample{}, err
		}
		return sample{rate: 1 / time.Since(began).Seconds()}, nil
	})
}

func (b *storesBench) coldRaw(ctx context.Context, trip time.Duration) error {
	far, _, err := b.raw(ctx)
	if err != nil {
		return err
	}
	object := url(b.far.Addr(), far.export)
	return b.inTurns(fmt.Sprintf("raw, %d ms", trip.Milliseconds()), coldRaw.name, []string{"curl", "glanced"}, func(who, _ int) (sample, error) {
		if err := b.cold(ctx, far, trip); err != nil {
			return sample{}, err
		}
		if who == 0 {
			return timed(exec.CommandContext(ctx, "curl", "-sSf", "-o", "/dev/null", object), b.size)
		}
		return copyOnce(ctx, far, b.size)
	})
}

func (b *storesBench) warmRaw(ctx context.Context) error {
	far, local, err := b.raw(ctx)
	if err != nil {
		return err
	}
	if err := b.ours.ctl(ctx, "cache", "prefetch", far.export); err != nil {
		return err
	}
	b.far.Move(farTrip)
	return b.inTurns("raw", warmRaw.name, []string{"glanced, local folder", "glanced"}, func(who, _ int) (sample, error) {
		return copyOnce(ctx, []peer{local, far}[who], b.size)
	})
}

func (b *storesBench) coldZlib(ctx context.Context) error {
	far, _, _, err := b.stored(ctx, formats[2])
	if err != nil {
		return err
	}
	object := url(b.far.Addr(), far.export)
	null := fmt.Sprintf("driver=null-co,size=%d,read-zeroes=on", b.size)
	source := fmt.Sprintf(`json:{"driver":"qcow2","file":{"driver":"http","url":%q}}`, object)
	return b.inTurns("qcow2-zlib, 20 ms", coldZlib.name, []string{"qemu-img, curl driver", "nbdkit curl + qemu-nbd", "glanced"}, func(who, _ int) (sample, error) {
		if err := b.cold(ctx, far, farTrip); err != nil {
			return sample{}, err
		}
		switch who {
		case 0:
			return timed(exec.CommandContext(ctx, "qemu-img", "convert", "-m", "8", "-n", "--target-image-opts", source, null), b.data)
		case 1:
			return throughNBDkit(ctx, b.dir, object, b.data)
		}
		return copyOnce(ctx, far, b.data)
	})
}

// manyReaders has 200 clients read one cold image at once, and counts what the server
// is asked for.
func (b *storesBench) manyReaders(ctx context.Context) error {
	const clients = 200
	small := filepath.Join(b.dir, "small.raw")
	if err := command(ctx, "contrib/demo/make-disk.sh", "--small", small, "64"); err != nil {
		return err
	}
	b.far.Move(0)
	p, err := b.ours.upload(ctx, formats[0], small)
	if err != nil {
		return err
	}
	if err := b.cold(ctx, p, farTrip); err != nil {
		return err
	}
	_, _, before := b.far.Traffic()
	began := time.Now()
	var all []*exec.Cmd
	for range clients {
		c := exec.CommandContext(ctx, "nbdcopy", "--connections=1", p.uri(), "null:")
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.Wait(); err != nil {
			return fmt.Errorf("one of %d clients: %w", clients, err)
		}
	}
	took := time.Since(began)
	_, _, after := b.far.Traffic()
	b.rows = append(b.rows, fmt.Sprintf("%d clients that read the same cold image of 64 MiB at once took %.1f s; the server sent %.3f times its bytes.",
		clients, took.Seconds(), float64(after-before)/(64<<20)))
	return nil
}

// manyImages has 200 images open, each read a little of, and looks at the memory.
func (b *storesBench) manyImages(ctx context.Context) error {
	const images = 200
	small := filepath.Join(b.dir, "tiny.raw")
	if err := os.WriteFile(small, make([]byte, 4<<20), 0o600); err != nil {
		return err
	}
	b.far.Move(0)
	for range images {
		p, err := b.ours.upload(ctx, formats[0], small)
		if err != nil {
			return err
		}
		c, err := dial(p)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		var offsets []int64
		for off := int64(0); off < 4<<20; off += 64 << 10 {
			offsets = append(offsets, off)
		}
		if err := c.readBlocks(offsets); err != nil {
			return err
		}
	}
	rss, err := residentMiB(b.ours.pid())
	if err != nil {
		return err
	}
	b.rows = append(b.rows, fmt.Sprintf("With %d far images open, of each of which 64 places were read, the daemon (memory.budget 512MiB) holds %d MiB.", images, rss))
	return nil
}

func (b *storesBench) report(w io.Writer) {
	b.heading(w, "Images in an S3 server", "bench-stores", fmt.Sprintf(
		"A disk of %d MiB, %d of them data, in versitygw behind a proxy with %v of round trip and %d KiB in flight on each connection, the same for all;",
		b.size>>20, b.data>>20, farTrip, window>>10))
	for _, t := range []struct {
		workload workload
		rows     []string
		base     string
	}{
		{firstRead, []string{"raw, 20 ms"}, "glanced"},
		{coldRaw, []string{"raw, 20 ms", "raw, 0 ms"}, "curl"},
		{coldZlib, []string{"qcow2-zlib, 20 ms"}, "qemu-img, curl driver"},
		{warmRaw, []string{"raw"}, "glanced, local folder"},
		{uploads, []string{"raw, 20 ms", "raw, 0 ms"}, minioName},
	} {
		b.results.table(w, t.rows, t.workload, t.base)
	}
	if len(b.rows) > 0 {
		fmt.Fprintf(w, "\n## Counted\n\n%s\n", strings.Join(b.rows, "\n\n"))
	}
}
