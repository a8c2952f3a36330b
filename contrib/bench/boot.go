package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"glanced/contrib/distance"
)

// bootBench is one run of bench boot: a Debian boots from an S3 server that is far away.
type bootBench struct {
	*run
	accel string // qemu's
	far   *distance.Proxy
	gw    *gateway
	ours  *glanced
	what  string           // is on the disk
	sizes map[string]int64 // of the image in each format, bytes
}

const (
	// touchedBlock is the unit in which is counted what a guest reads, bytes.
	touchedBlock = 256 << 10
	// bootPackages are what the disk has beside a minimal Debian, as a server would.
	bootPackages = "build-essential git openssh-server cron rsyslog python3 vim"
	// marker is in the line that the guest writes when it is up; see make-disk.sh.
	marker = "demo: "
)

// Who boots, and what is measured of it beside the time.
var (
	booters       = []string{"local file", "glanced", "curl, then a local file"}
	bootTime      = "until it is up, s"
	bootFetched   = "fetched, MiB"
	bootTouched   = "touched, MiB"
	bootedFormats = []format{formats[0], formats[1]}
)

func benchBoot(ctx context.Context) (err error) {
	r, err := newRun("a Debian of 2 GiB that boots")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	r.cold = true
	b := &bootBench{run: r, accel: "tcg", sizes: map[string]int64{}}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		b.accel = "kvm"
	}
	if err := b.makeDebian(ctx); err != nil {
		return err
	}
	if b.gw, err = startGateway(ctx, filepath.Join(r.dir, "objects")); err != nil {
		return err
	}
	defer b.gw.stop()
	if b.far, err = distance.Listen(b.gw.addr, 0, window); err != nil {
		return err
	}
	defer b.far.Close()
	b.ours = &glanced{build: build{"glanced", "bin"}, budget: "512MiB", store: b.gw.store(b.far.Addr())}
	if err := b.ours.start(ctx, filepath.Join(r.dir, "ours")); err != nil {
		return err
	}
	defer func() { b.ours.stop() }()
	if err := r.each(ctx, bootedFormats, b.measure); err != nil {
		return err
	}
	return r.write("boot", b.report)
}

func (b *bootBench) makeDebian(ctx context.Context) error {
	if b.disk != "" {
		b.what = "as given"
		return nil
	}
	b.disk = filepath.Join(b.dir, "disk.raw")
	packages, size := bootPackages, "2048"
	if b.small {
		packages, size = "", "1024"
	}
	b.what = strings.TrimSpace("minbase, systemd, cloud kernel " + packages)
	return command(ctx, "env", "DEBIAN_PACKAGES="+packages, "contrib/demo/make-disk.sh", b.disk, size)
}

// measure has all boot the disk in format f.
func (b *bootBench) measure(ctx context.Context, f format) error {
	b.far.Move(0)
	file := filepath.Join(b.dir, "image."+f.name)
	defer os.Remove(file)
	if err := f.make(ctx, b.disk, file); err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	b.sizes[f.name] = info.Size()
	far, err := b.ours.upload(ctx, f, file)
	if err != nil {
		return err
	}
	return b.inTurns(f.name, bootTime, booters, func(who, round int) (sample, error) {
		// All closed, nothing in memory, nothing cached.
		if err := b.ours.ctl(ctx, "cache", "evict", far.export); err != nil {
			return sample{}, err
		}
		b.ours.stop()
		if err := b.ours.again(ctx); err != nil {
			return sample{}, err
		}
		b.far.Move(farTrip)
		_, _, before := b.far.Traffic()
		began := time.Now()
		disk, format := file, f.driver
		switch who {
		case 1:
			disk, format = far.uri(), "raw"
		case 2:
			disk = filepath.Join(b.dir, "downloaded")
			defer os.Remove(disk)
			if err := quietly(exec.CommandContext(ctx, "curl", "-sSf", "-o", disk, url(b.far.Addr(), far.export))); err != nil {
				return sample{}, err
			}
		}
		up, touched, err := b.boot(ctx, disk, format)
		if err != nil {
			return sample{}, err
		}
		_, _, after := b.far.Traffic()
		took := up.Sub(began).Seconds()
		fmt.Fprintf(os.Stderr, "%s, %s, round %d: %.2f s, %.1f MiB fetched, %.1f MiB touched\n", f.name, booters[who], round,
			took, mib(after-before), mib(touched))
		b.results.add(key{f.name, bootFetched, booters[who]}, sample{rate: mib(after - before)})
		b.results.add(key{f.name, bootTouched, booters[who]}, sample{rate: mib(touched)})
		return sample{rate: took}, nil
	})
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// boot boots from an overlay on a disk, a file or an NBD URI, to the end. It says when
// the guest was up, and how many bytes of it were touched if it is an NBD export: all
// of the blocks of touchedBlock in which qemu read something.
func (b *bootBench) boot(ctx context.Context, disk, format string) (up time.Time, touched int64, err error) {
	overlay, requests := filepath.Join(b.dir, "overlay.qcow2"), filepath.Join(b.dir, "requests")
	defer os.Remove(overlay)
	defer os.Remove(requests)
	if err := quietly(exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", disk, overlay)); err != nil {
		return up, 0, err
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", b.accel, "-smp", "2", "-m", "512", "-nic", "none", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-drive", "if=virtio,format=qcow2,file="+overlay,
		"-trace", "nbd_send_request", "-D", requests)
	cmd.Stderr = os.Stderr
	serial, err := cmd.StdoutPipe()
	if err != nil {
		return up, 0, err
	}
	if err := cmd.Start(); err != nil {
		return up, 0, fmt.Errorf("start qemu: %w", err)
	}
	var last []string
	for lines := bufio.NewScanner(serial); lines.Scan(); {
		if up.IsZero() && strings.Contains(lines.Text(), marker) {
			up = time.Now()
		}
		last = append(last, lines.Text())
		last = last[max(0, len(last)-10):]
	}
	if err := cmd.Wait(); err != nil {
		return up, 0, fmt.Errorf("qemu: %w", err)
	}
	if up.IsZero() {
		return up, 0, fmt.Errorf("the guest did not come up: %s", strings.Join(last, "\n"))
	}
	if touched, err = touchedBytes(requests); err == nil && touched == 0 && strings.HasPrefix(disk, "nbd") {
		err = errors.New("qemu's trace shows no read of the export")
	}
	return up, touched, err
}

// sentRead is a read in qemu's trace of what it asks of an NBD server.
var sentRead = regexp.MustCompile(`nbd_send_request .*\.from = (\d+), \.len = (\d+),.*\(read\)`)

// touchedBytes is the blocks of touchedBlock that the reads in a trace lie in, bytes.
func touchedBytes(trace string) (int64, error) {
	f, err := os.Open(trace)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // no NBD server took part
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	blocks := map[int64]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		m := sentRead.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		from, _ := strconv.ParseInt(m[1], 10, 64)
		n, _ := strconv.ParseInt(m[2], 10, 64)
		for i := from / touchedBlock; i*touchedBlock < from+n; i++ {
			blocks[i] = true
		}
	}
	return int64(len(blocks)) * touchedBlock, lines.Err()
}

func (b *bootBench) report(w io.Writer) {
	data, _ := allocated(b.disk)
	b.heading(w, "A Debian boots from S3", "bench-boot", fmt.Sprintf(
		"A Debian on a disk of %d MiB, %d of them in use (%s), in versitygw behind a proxy with %v of round trip "+
			"and %d KiB in flight on each connection, the same for all. Each boots a guest of qemu-system (%s, 2 CPUs, 512 MiB, BIOS and GRUB) "+
			"from a new overlay; the daemon was restarted and its cache is empty; the local file and what curl wrote are in the page cache.",
		b.fileSize()>>20, data>>20, b.what, farTrip, window>>10, b.accel))
	fmt.Fprintf(w, "\nTime is from the first command to the line that a unit after multi-user.target writes. Touched are the distinct blocks of %d KiB "+
		"of the guest disk in which qemu's own trace of its NBD requests shows reads; fetched is what the server sent, headers too.\n", touchedBlock>>10)
	fmt.Fprintf(w, "\n| format | who | %s | ± %% | %s | %s | fetched / touched | added to local, s | added / curl's |\n|---|---|---|---|---|---|---|---|---|\n",
		bootTime, bootFetched, bootTouched)
	for _, f := range bootedFormats {
		seconds := func(who string) float64 { return median(b.results.samples[key{f.name, bootTime, who}]).rate }
		for _, who := range booters {
			if all := b.results.samples[key{f.name, bootTime, who}]; len(all) > 0 {
				fetched := median(b.results.samples[key{f.name, bootFetched, who}]).rate
				shown, ratio := "–", "–"
				if touched := median(b.results.samples[key{f.name, bootTouched, who}]).rate; touched > 0 {
					shown, ratio = fmt.Sprintf("%.1f", touched), fmt.Sprintf("%.2f", fetched/touched)
				}
				added, curls := seconds(who)-seconds(booters[0]), seconds(booters[2])-seconds(booters[0])
				fmt.Fprintf(w, "| %s (%d MiB) | %s | %.2f | %.0f | %.1f | %s | %s | %.2f | %.2f |\n", f.name, b.sizes[f.name]>>20, who, seconds(who),
					100*spread(all), fetched, shown, ratio, added, added/curls)
			}
		}
	}
}

func (b *bootBench) fileSize() int64 {
	info, err := os.Stat(b.disk)
	if err != nil {
		return 0
	}
	return info.Size()
}
