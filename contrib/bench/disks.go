package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// format is one shape of the disk; args are qemu-img convert's.
type format struct {
	name, driver string
	args         []string
}

var formats = []format{
	{"raw", "raw", []string{"-O", "raw"}},
	{"qcow2", "qcow2", []string{"-O", "qcow2"}},
	{"qcow2-zlib", "qcow2", []string{"-c", "-O", "qcow2"}},
	{"qcow2-zstd", "qcow2", []string{"-c", "-O", "qcow2", "-o", "compression_type=zstd"}},
	{"vmdk", "vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicSparse"}},
	{"vmdk-stream", "vmdk", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}},
}

// make converts a raw disk into a file of this format, and reads it once.
func (f format) make(ctx context.Context, disk, file string) error {
	if err := command(ctx, "qemu-img", append(append([]string{"convert", "-f", "raw"}, f.args...), disk, file)...); err != nil {
		return err
	}
	return readFile(file)
}

// allocated is how many bytes of a sparse file are not holes.
func allocated(path string) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Blocks * 512, nil
}

// readFormats are the shapes that bench formats reads: those of the servers, and
// what only desktop hypervisors write.
var readFormats = append(slices.Clone(formats),
	format{"vhd", "vpc", []string{"-O", "vpc", "-o", "force_size=on"}},
	format{"vhdx", "vhdx", []string{"-O", "vhdx"}},
	format{"vdi", "vdi", []string{"-O", "vdi"}},
	format{"parallels", "parallels", []string{"-O", "parallels"}},
)

// ourName is the word for f's format that glancectl takes.
func ourName(f format) string {
	switch f.driver {
	case "vpc":
		return "vhd"
	case "parallels":
		return "ploop"
	}
	return f.driver
}

// dataBlocks lists the offsets of the blocks of a sparse file that are not holes.
func dataBlocks(path string) ([]int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var blocks []int64
	for off := int64(0); off < info.Size(); {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("find the data of %s: %w", path, err)
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find the holes of %s: %w", path, err)
		}
		for off = data / block * block; off < hole && off+block <= info.Size(); off += block {
			blocks = append(blocks, off)
		}
		off = hole
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s holds no data", path)
	}
	return blocks, nil
}
