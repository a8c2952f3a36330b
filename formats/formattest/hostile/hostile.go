// Package hostile makes images that malicious or broken software would: one or
// more of every class of attack, for every disk format and container that it
// applies to. They are made by hand, field by field, and are the same each time.
// It is for tests only: of the drivers, the offline tool and the daemon.
//
// Vocabulary. Class: what an image tries. Step: what sees it first. Bait: a name
// written into an image in the hope that somebody opens it.
package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Class is what an image tries.
type Class string

const (
	Names         Class = "a name of another file"
	Chain         Class = "a chain of images without end"
	Sizes         Class = "sizes from headers"
	Clusters      Class = "cluster sizes"
	Entries       Class = "table entries that make no sense"
	Aliasing      Class = "tables and clusters used again and again"
	Streams       Class = "bad compressed clusters"
	Amplification Class = "little in, much out"
	Log           Class = "a log to play back"
	Archive       Class = "archives"
	Polyglot      Class = "two formats at once"
	Disguise      Class = "another format than the declared one"
	Time          Class = "walks without end"
)

// Classes is every class.
var Classes = []Class{Names, Chain, Sizes, Clusters, Entries, Aliasing, Streams, Amplification, Log, Archive, Polyglot, Disguise, Time}

// Step is what sees first that something is wrong.
type Step uint8

const (
	Open Step = iota // the look at the head and the tail, the container, Inspect or Open
	Map              // the walk of the whole map
	Read             // reading all of the disk
)

// Image is one hostile image.
type Image struct {
	Class     Class
	Name      string // unique, with the format in front; a test's name
	Format    string // what it is declared as: a disk_format word of Glance
	Container string // a container_format word: bare, ova, compressed
	// Want is what must come of it: a sentinel of package formats or of package
	// container, at Step. nil = it is odd, and no more than that: it is read like
	// any other, within the same bounds.
	Want error
	Step Step
	Size int64 // of the file, bytes

	file file
}

// Write makes the image as a file in dir, with holes where it is large, and
// returns its path.
func (img Image) Write(dir string) (string, error) {
	f, err := os.CreateTemp(dir, "hostile-*.img")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for off, part := range img.file.parts {
		if _, err := f.WriteAt(part, off); err != nil {
			return "", fmt.Errorf("write %s: %w", img.Name, err)
		}
	}
	if err := f.Truncate(img.Size); err != nil {
		return "", fmt.Errorf("write %s: %w", img.Name, err)
	}
	return filepath.Clean(f.Name()), f.Close()
}

// Bytes is the image in memory.
func (img Image) Bytes() []byte {
	b := make([]byte, img.Size)
	for off, part := range img.file.parts {
		copy(b[off:], part)
	}
	return b
}

// Images is every hostile image.
func Images() []Image {
	var all []Image
	for _, m := range makers {
		all = append(all, m.make()...)
	}
	return append(all, rotated()...)
}

// makers is what makes the images that are declared as a format or a container;
// those of "" are many.
var makers = []struct {
	declared string
	make     func() []Image
}{
	{"qcow2", qcow2Images}, {"vmdk", vmdkImages}, {"vhd", vhdImages}, {"vhdx", vhdxImages}, {"vdi", vdiImages},
	{"ploop", parallelsImages}, {"qed", qedImages}, {"iso", isoImages},
	{"ova", ovaImages}, {"compressed", compressedImages}, {"", polyglots},
}

// Seeds are the bare images of one format that are at most 64 KiB long, for fuzz targets.
func Seeds(format string) [][]byte {
	var seeds [][]byte
	for _, img := range declared(format) {
		if img.Format == format && img.Container == "bare" && img.Size <= 64<<10 {
			seeds = append(seeds, img.Bytes())
		}
	}
	return seeds
}

// ContainerSeeds are the images in one kind of container that are at most 64 KiB long.
func ContainerSeeds(container string) [][]byte {
	var seeds [][]byte
	for _, img := range declared(container) {
		if img.Container == container && img.Size <= 64<<10 {
			seeds = append(seeds, img.Bytes())
		}
	}
	return seeds
}

// declared is those that are declared as a format or a container, and perhaps others.
func declared(as string) []Image {
	all := References("/etc/passwd")
	for _, m := range makers {
		if m.declared == as || m.declared == "" {
			all = append(all, m.make()...)
		}
	}
	return all
}

// file is what a file holds: parts, by offset, and zeros.
type file struct {
	parts map[int64][]byte
	size  int64
}

// holed is b with zeros behind it, size bytes in all.
func holed(b []byte, size int64) file { return file{map[int64][]byte{0: b}, size} }

// maker collects the images of one format.
type maker struct {
	format, container string
	images            []Image
}

// add takes an image in memory. What is zeros in it is a hole in its file.
func (m *maker) add(class Class, name string, want error, step Step, b []byte) {
	m.addFile(class, name, want, step, sparse(b))
}

func (m *maker) addFile(class Class, name string, want error, step Step, f file) {
	label := m.format
	if m.container != "bare" {
		label = m.container + " " + m.format
	}
	m.images = append(m.images, Image{
		Class: class, Name: label + ": " + name, Format: m.format, Container: m.container,
		Want: want, Step: step, Size: f.size, file: f,
	})
}

// sparse leaves out of b the pieces of 64 KiB that are zeros.
func sparse(b []byte) file {
	const piece = 64 << 10
	f := file{map[int64][]byte{}, int64(len(b))}
	off := int64(0)
	for part := range slices.Chunk(b, piece) {
		if slices.ContainsFunc(part, func(c byte) bool { return c != 0 }) {
			f.parts[off] = part
		}
		off += int64(len(part))
	}
	return f
}
