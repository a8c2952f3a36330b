package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lima-vm/go-qcow2reader/convert"
	"github.com/urfave/cli/v2"

	"glanced/formats/goqcow2"
)

func diskConvertCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "convert", Usage: "write the guest disk out as a raw file", ArgsUsage: "FILE OUT",
		Description: "Zeros become holes in OUT, which gets its name only when it is whole." + examples(
			"glancectl disk convert debian-12.qcow2 debian-12.raw",
			"glancectl disk convert --format raw dump.bin copy.raw --force"),
		Flags: append([]cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "force", Usage: "replace OUT if it is there"},
		}, progressFlags()...),
		Action: func(c *cli.Context) error { return diskConvert(c, s) },
	}
}

func diskConvert(c *cli.Context, s streams) error {
	args, err := arguments(c, "FILE", "OUT")
	if err != nil {
		return err
	}
	path, target := args[0], args[1]
	if err := replaceable(path, target, c.Bool("force")); err != nil {
		return err
	}
	d, err := openDisk(c, path)
	if err != nil {
		return err
	}
	defer d.close()
	g, err := d.guest(c)
	if err != nil {
		return err
	}
	defer g.Close()

	out, err := createFile(target)
	if err != nil {
		return err
	}
	defer out.discard()
	if err := out.Truncate(g.Size()); err != nil {
		return fmt.Errorf("make %s %d bytes long: %w", target, g.Size(), err)
	}
	bar := startProgress(c, s, "convert", g.Size())
	opts := convert.Options{}
	if bar != nil {
		opts.Progress = bar
	}
	err = convert.Convert(out, goqcow2.New(c.Context, g), opts)
	bar.finish()
	if err != nil {
		return fmt.Errorf("convert %s: %w", path, err)
	}
	return out.commit()
}

// replaceable refuses an OUT that is there, unless force says to replace it, and
// always one that is no regular file or is the input itself.
func replaceable(path, target string, force bool) error {
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
	if in, err := os.Stat(path); err == nil && os.SameFile(in, have) {
		return fmt.Errorf("%s and %s are the same file", path, target)
	}
	if !force {
		return &advised{fmt.Errorf("%s is there already", target), "Name another file, or replace it with --force."}
	}
	return nil
}
