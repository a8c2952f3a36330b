package formattest

import (
	"os"
	"path/filepath"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
)

// Variant is one way in which qemu-img makes images of a format.
type Variant struct {
	Options string   // of qemu-img's -o; also the test's name
	Args    []string // more arguments of qemu-img convert: "-c", "-S", "0"
	// Largest leaves out truth disks of more bytes (a preallocated sparse disk
	// would fill the file system); 0 = all. Smallest leaves out those of fewer.
	Largest, Smallest int64
	// Edit changes the finished image; its name ends the test's name.
	EditName string
	Edit     func(t *testing.T, path string)
	// Files makes what supplies the files that the image at path refers to, for
	// formats that put a disk in several; nil refuses them.
	Files func(t *testing.T, path string) formats.Files
}

func (v Variant) name() string {
	name := v.Options
	for _, s := range append(v.Args, v.EditName) {
		if s != "" {
			name += " " + s
		}
	}
	if name == "" {
		return "plain"
	}
	return name
}

// Golden makes an image of every variant from each of Truths with qemu-img, and
// compares each with what qemu-img itself reads from it. qemuFormat is qemu's
// name for the format.
func Golden(t *testing.T, d formats.Driver, qemuFormat string, variants []Variant) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	raws := make(map[string]string)
	for _, tr := range Truths {
		raws[tr.Name] = tr.Make(t, dir)
	}
	for i, v := range variants {
		t.Run(v.name(), func(t *testing.T) {
			t.Parallel()
			for _, tr := range Truths {
				if v.Largest > 0 && tr.Size > v.Largest || tr.Size < v.Smallest {
					continue
				}
				path := filepath.Join(t.TempDir(), tr.Name+".image")
				args := []string{"convert", "-f", "raw", "-O", qemuFormat}
				if v.Options != "" {
					args = append(args, "-o", v.Options)
				}
				args = append(args, v.Args...)
				testbed.Run(t, "qemu-img", append(args, raws[tr.Name], path)...)
				if v.Edit != nil {
					v.Edit(t, path)
				}
				img := Image{Driver: d, Path: path, QemuFormat: qemuFormat, Seed: uint64(i)}
				if v.Files != nil {
					img.Open.Files = v.Files(t, path)
				}
				img.Compare(t, tr.Name)
			}
		})
	}
}

// QemuSeeds are small images that qemu-img makes of a format (qemu's name for it)
// with each of options, of a disk of size bytes with a little data in it, for fuzz
// targets. Those over 256 KiB are left out; one at least is not.
func QemuSeeds(tb testing.TB, qemuFormat string, size int, options ...string) [][]byte {
	tb.Helper()
	testbed.Need(tb, "qemu-img", "qemu-utils")
	disk := make([]byte, size)
	copy(disk, "data at the beginning")
	copy(disk[size-512:], "and at the end")
	raw := filepath.Join(tb.TempDir(), "raw")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		tb.Fatal(err)
	}
	var seeds [][]byte
	for _, o := range options {
		path := filepath.Join(tb.TempDir(), "seed")
		testbed.Run(tb, "qemu-img", "convert", "-f", "raw", "-O", qemuFormat, "-o", o, raw, path)
		image, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		if len(image) <= 256<<10 {
			seeds = append(seeds, image)
		}
	}
	if len(seeds) == 0 {
		tb.Fatalf("none of qemu-img's %s images is small", qemuFormat)
	}
	return seeds
}
