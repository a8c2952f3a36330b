package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/lima-vm/go-qcow2reader/convert"
	"github.com/urfave/cli/v2"

	"glanced/formats/encode"
	"glanced/formats/engine"
	"glanced/formats/goqcow2"
)

func diskConvertCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "convert", Usage: "write the guest disk out as a raw, qcow2 or vmdk file", ArgsUsage: "FILE OUT",
		Description: "Zeros become holes in OUT, which gets its name only when it is whole. OUT - is standard output.\n" +
			"   raw    the disk byte for byte\n" +
			"   qcow2  version 3, its clusters not compressed\n" +
			"   vmdk   streamOptimized, compressed\n" +
			readsAll + examples(
			"glancectl disk convert debian-12.qcow2 debian-12.raw",
			"glancectl disk convert appliance.ova disk.qcow2 --to qcow2",
			"glancectl disk convert debian-12.qcow2 - --to vmdk | ssh host 'cat > disk.vmdk'",
			"glancectl disk convert --format raw dump.bin copy.raw --force"),
		Flags: append(diskFlags(
			&cli.StringFlag{Name: "to", Value: toRaw, Usage: "write `raw|qcow2|vmdk`"},
			&cli.BoolFlag{Name: "force", Usage: "replace OUT if it is there"},
		), progressFlags()...),
		Action: func(c *cli.Context) error { return diskConvert(c, s) },
	}
}

// The formats that disks are written in.
const (
	toRaw   = "raw"
	toQCOW2 = "qcow2"
	toVMDK  = "vmdk"
)

// writable refuses a format that disks are not written in.
func writable(c *cli.Context, option string) error {
	switch to := c.String(option); to {
	case toRaw, toQCOW2, toVMDK:
		return nil
	default:
		return usagef(c, "--%s %q is not one of raw, qcow2, vmdk", option, to)
	}
}

func diskConvert(c *cli.Context, s streams) error {
	args, err := arguments(c, "FILE", "OUT")
	if err != nil {
		return err
	}
	if err := writable(c, "to"); err != nil {
		return err
	}
	o, err := diskOptionsOf(c)
	if err != nil {
		return err
	}
	path, target := args[0], args[1]
	if target == "-" && isTerminal(s.out) {
		return usagef(c, "standard output is a terminal: name a file, or pipe the data on")
	}
	if target != "-" {
		if err := replaceable(append([]string{path}, refFiles(o.refs)...), target, c.Bool("force")); err != nil {
			return err
		}
	}
	d, err := openDisk(c.Context, path, o, diskEngine())
	if err != nil {
		return err
	}
	defer d.close()
	if err := refuseDigests(c, s, d); err != nil {
		return err
	}
	g, err := d.guest(c.Context)
	if err != nil {
		return err
	}
	defer g.Close()
	if target == "-" {
		return convertError(c, d, convertToStream(c, s, g, s.out))
	}
	out, err := createFile(target)
	if err != nil {
		return err
	}
	defer out.discard()
	if err := convertToFile(c, s, g, out); err != nil {
		return convertError(c, d, err)
	}
	return out.commit()
}

func convertError(c *cli.Context, d *disk, err error) error {
	if err == nil {
		return nil
	}
	if c.Context.Err() != nil {
		err = c.Context.Err()
	}
	return fmt.Errorf("convert %s: %w", d.name(), err)
}

// convertToFile writes g into out as --to says.
func convertToFile(c *cli.Context, s streams, g *engine.Disk, out *newFile) error {
	if c.String("to") == toVMDK {
		return convertToStream(c, s, g, out)
	}
	if c.String("to") == toRaw {
		if err := out.Truncate(g.Size()); err != nil {
			return fmt.Errorf("make %s %d bytes long: %w", out.final, g.Size(), err)
		}
		bar := startProgress(c, s, "convert", g.Size())
		defer bar.finish()
		opts := convert.Options{}
		if bar != nil {
			opts.Progress = bar
		}
		return convert.Convert(out, goqcow2.New(c.Context, g), opts)
	}
	img, err := encode.QCOW2(c.Context, g)
	if err != nil {
		return err
	}
	if err := out.Truncate(img.Size()); err != nil {
		return fmt.Errorf("make %s %d bytes long: %w", out.final, img.Size(), err)
	}
	bar := startProgress(c, s, "convert", img.Size())
	defer bar.finish()
	return copyToFile(c.Context, out.File, img, bar)
}

// convertToStream writes g to w from its first byte to its last.
func convertToStream(c *cli.Context, s streams, g *engine.Disk, w io.Writer) error {
	var img encode.Image = g
	switch c.String("to") {
	case toVMDK:
		// How long it gets shows only at its end; how much is read for it does not.
		n, err := allocatedBytes(c.Context, g)
		if err != nil {
			return err
		}
		bar := startProgress(c, s, "convert", n)
		defer bar.finish()
		buffered := bufio.NewWriterSize(w, 1<<20)
		if err := encode.VMDK(c.Context, countedDisk{g, bar}, buffered); err != nil {
			return err
		}
		return buffered.Flush()
	case toQCOW2:
		var err error
		if img, err = encode.QCOW2(c.Context, g); err != nil {
			return err
		}
	}
	bar := startProgress(c, s, "convert", img.Size())
	defer bar.finish()
	return copyInOrder(c.Context, w, img, bar)
}

// refFiles are the files of valid --ref options.
func refFiles(options []string) []string {
	var files []string
	for _, text := range options {
		files = append(files, text[strings.LastIndexByte(text, '=')+1:])
	}
	return files
}

// replaceable refuses an OUT that is there, unless force says to replace it, and
// always one that is no regular file or is one of the inputs.
func replaceable(inputs []string, target string, force bool) error {
	have, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(target); err == nil {
			return fmt.Errorf("%s is a symbolic link that leads nowhere", target)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !have.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file, and cannot be replaced by one", target)
	}
	for _, path := range inputs {
		if in, err := os.Stat(path); err == nil && os.SameFile(in, have) {
			return fmt.Errorf("%s and %s are the same file", path, target)
		}
	}
	if !force {
		return &advised{fmt.Errorf("%s is there already", target), "Name another file, or replace it with --force."}
	}
	return nil
}
