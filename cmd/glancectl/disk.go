package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/formats/all"
	"glanced/formats/engine"
)

func diskCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "disk", Usage: "look into disk images, check, convert and time them, without a daemon",
		Description: "Works on local files with the daemon's own format drivers, and as strictly: a name found\n" +
			"inside an image is shown, and never opened. What an image refers to is read from the file that\n" +
			"--ref names for it, and from no other." + examples(
			"glancectl disk info debian-12.qcow2",
			"glancectl disk check appliance.ova",
			"glancectl disk convert debian-12.vmdk debian-12.raw",
			"glancectl disk map child.qcow2 --ref base.qcow2=/srv/base.qcow2"),
		Subcommands: []*cli.Command{
			diskInfoCommand(s), diskMapCommand(s), diskConvertCommand(s), diskCheckCommand(s), diskBenchCommand(s),
		},
	}
}

// diskFlags say what the file is and what belongs to it.
func diskFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "format", Usage: "take it for an image of `FORMAT`, whatever it looks like"},
		&cli.StringFlag{Name: "container", Usage: "the image is inside a `CONTAINER`: bare (it is not), " + strings.Join(containerNames(), ", ")},
		&cli.StringFlag{Name: "snapshot", Usage: "the disk of the internal snapshot with the id or name `NAME`"},
		&cli.StringSliceFlag{Name: "ref", Usage: "where the image refers to NAME, read FILE: `NAME=FILE`, or backing|data|extent|parent=FILE (repeatable)"},
	}, more...)
}

func containerNames() []string {
	var names []string
	for _, c := range all.Containers() {
		names = append(names, c.Name)
	}
	return names
}

// diskOptions are the values of diskFlags.
type diskOptions struct {
	format    string // "" = found out
	container string // "" = found out; bare = none
	snapshot  string // "" = the active disk
	refs      []string
}

func diskOptionsOf(c *cli.Context) (diskOptions, error) {
	o := diskOptions{format: c.String("format"), container: c.String("container"), snapshot: c.String("snapshot"), refs: c.StringSlice("ref")}
	var names []string
	for _, d := range all.Drivers() {
		names = append(names, d.Name)
	}
	if c.IsSet("format") && !slices.Contains(names, o.format) {
		return o, usagef(c, "--format %q is not one of %s", o.format, strings.Join(names, ", "))
	}
	if names := append([]string{bare}, containerNames()...); c.IsSet("container") && !slices.Contains(names, o.container) {
		return o, usagef(c, "--container %q is not one of %s", o.container, strings.Join(names, ", "))
	}
	if c.IsSet("snapshot") && o.snapshot == "" {
		return o, usagef(c, "--snapshot is empty: name one, as glancectl disk info lists them")
	}
	if _, err := parseRefs(o.refs); err != nil {
		return o, usagef(c, "%v", err)
	}
	return o, nil
}

// Bounds of the engine that the disk commands run, bytes.
const (
	diskCacheBytes = 64 << 20
	diskTableBytes = 32 << 20
)

func diskEngine() engine.Options {
	return engine.Options{CacheBytes: diskCacheBytes, TableBytes: diskTableBytes}
}

// diskAction is the frame of a command that tells something of one local FILE.
func diskAction(s streams, tell func(*cli.Context, *printer, *disk) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		args, err := arguments(c, "FILE")
		if err != nil {
			return err
		}
		p, err := newPrinter(c, s)
		if err != nil {
			return err
		}
		o, err := diskOptionsOf(c)
		if err != nil {
			return err
		}
		d, err := openDisk(c.Context, args[0], o, diskEngine())
		if err != nil {
			return err
		}
		defer d.close()
		return tell(c, p, d)
	}
}

// regularOrDevice refuses what has no fixed content to look into.
func regularOrDevice(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	switch m := info.Mode(); {
	case m.IsDir():
		return fmt.Errorf("%s is a folder, not a disk image", path)
	case m.IsRegular(), m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0:
		return nil
	}
	return &advised{fmt.Errorf("%s is no regular file: %w", path, errors.ErrUnsupported), "Copy its content to a file first."}
}
