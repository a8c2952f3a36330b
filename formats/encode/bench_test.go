package encode_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/encode"
	"glanced/formats/formattest"
	"glanced/formats/raw"
)

// programsFile is a raw disk of the Go tree's own programs, with holes between.
func programsFile(b *testing.B) string {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("no Go tree to take content from: ", err)
	}
	names, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "pkg", "tool", "*", "*"))
	more, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "bin", "*"))
	path := filepath.Join(b.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	off := int64(0)
	for _, name := range append(names, more...) {
		data, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(data, off); err != nil {
			b.Fatal(err)
		}
		off += int64(len(data))>>20<<20 + 3<<20
	}
	if err := f.Truncate(off); err != nil {
		b.Fatal(err)
	}
	return path
}

// children is the processor time that ended child processes have used, with this
// one's.
func children() time.Duration {
	var self, kids syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &self)
	syscall.Getrusage(syscall.RUSAGE_CHILDREN, &kids)
	return time.Duration(self.Utime.Nano() + self.Stime.Nano() + kids.Utime.Nano() + kids.Stime.Nano())
}

// BenchmarkEncode writes one disk of programs in each format, and has qemu-img do
// the same. MB/s are of the guest disk's stored bytes; ratio is the file's size.
func BenchmarkEncode(b *testing.B) {
	testbed.Need(b, "qemu-img", "qemu-utils")
	path := programsFile(b)
	disk := open(b, raw.Driver(), formattest.OpenFile(b, path))
	stored := int64(0)
	if err := disk.Extents(b.Context(), 0, disk.Size(), func(x formats.Extent) bool {
		if x.Kind.Stored() {
			stored += x.Len
		}
		return true
	}); err != nil {
		b.Fatal(err)
	}
	to := filepath.Join(b.TempDir(), "out")
	image := func(lay func() (encode.Image, error)) func(io.Writer) error {
		return func(w io.Writer) error {
			img, err := lay()
			if err != nil {
				return err
			}
			buf := make([]byte, 1<<20)
			for off := int64(0); off < img.Size(); off += int64(len(buf)) {
				p := buf[:min(int64(len(buf)), img.Size()-off)]
				if err := img.ReadAt(b.Context(), p, off); err != nil {
					return err
				}
				if _, err := w.Write(p); err != nil {
					return err
				}
			}
			return nil
		}
	}
	ours := map[string]func(io.Writer) error{
		"raw":   image(func() (encode.Image, error) { return disk, nil }),
		"qcow2": image(func() (encode.Image, error) { return encode.QCOW2(b.Context(), disk) }),
		"vmdk":  func(w io.Writer) error { return encode.VMDK(b.Context(), disk, w) },
	}
	options := map[string][]string{"vmdk": {"-o", "subformat=streamOptimized"}}
	for _, format := range []string{"raw", "qcow2", "vmdk"} {
		run := func(who string, write func() error) {
			b.Run(format+"/"+who, func(b *testing.B) {
				b.SetBytes(stored)
				start := children()
				for b.Loop() {
					if err := write(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(stored)*float64(b.N)/1e6/(children()-start).Seconds(), "MB/cpu-s")
				if st, err := os.Stat(to); err == nil && who != "discard" {
					b.ReportMetric(float64(st.Size())/float64(stored), "ratio")
				}
			})
		}
		run("discard", func() error { return ours[format](io.Discard) })
		run("file", func() error {
			f, err := os.Create(to)
			if err != nil {
				return err
			}
			defer f.Close()
			return ours[format](f)
		})
		run("qemu-img", func() error {
			args := append([]string{"convert", "-f", "raw", "-O", format}, options[format]...)
			return exec.Command("qemu-img", append(args, path, to)...).Run()
		})
	}
}
