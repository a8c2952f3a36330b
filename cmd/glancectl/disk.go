package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/localfile"
)

// Bounds of the engine that the disk commands run, bytes.
const (
	diskCacheBytes = 64 << 20
	diskTableBytes = 32 << 20
)

func diskCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "disk", Usage: "look into disk images and convert them, without a daemon",
		Description: "Works on local files with the daemon's own format drivers, and as strictly:\n" +
			"a name found inside an image is shown, and never opened." + examples(
			"glancectl disk info debian-12.qcow2",
			"glancectl disk convert debian-12.vmdk debian-12.raw"),
		Subcommands: []*cli.Command{diskInfoCommand(s), diskMapCommand(s), diskConvertCommand(s)},
	}
}

func formatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "take the file for an image of `FORMAT`, whatever it looks like"}
}

// disk is a local file with the driver that it is to be read by.
type disk struct {
	path   string
	file   *localfile.Source
	driver formats.Driver
	engine *formats.Engine
}

// openDisk opens the file and picks the driver: the one that --format names, else
// the one that the content begins like.
func openDisk(c *cli.Context, path string) (*disk, error) {
	drivers := all.Drivers()
	driver, known := formats.Find(drivers, c.String("format"))
	if c.IsSet("format") && !known {
		var names []string
		for _, d := range drivers {
			names = append(names, d.Name)
		}
		return nil, usagef(c, "--format %q is not one of %s", c.String("format"), strings.Join(names, ", "))
	}
	file, err := openSource(path)
	if err != nil {
		return nil, err
	}
	if !c.IsSet("format") {
		name, err := formats.DetectSource(c.Context, drivers, file)
		driver, _ = formats.Find(drivers, name)
		if err != nil {
			file.Close()
			if errors.Is(err, formats.ErrFormat) { // of two formats at once
				return nil, &advised{fmt.Errorf("%s: %w", path, err), "Say what it is with --format."}
			}
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return &disk{path: path, file: file, driver: driver,
		engine: formats.NewEngine(formats.EngineOptions{CacheBytes: diskCacheBytes, TableBytes: diskTableBytes})}, nil
}

// close ends the use of the file; to be deferred.
func (d *disk) close() {
	d.engine.Close()
	d.file.Close()
}

// guest is the guest disk, which owns the file from here on. References inside
// the image stay unresolved, and so are refused.
func (d *disk) guest(c *cli.Context) (*formats.Disk, error) {
	g, err := d.engine.Open(c.Context, d.driver, []formats.Source{d.file}, nil, formats.Options{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	return g, nil
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
		d, err := openDisk(c, args[0])
		if err != nil {
			return err
		}
		defer d.close()
		return tell(c, p, d)
	}
}

func diskInfoCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "say what a disk image is, and whether it is safe", ArgsUsage: "FILE",
		Description: "allocated_size is how much of the guest disk holds data. An unsafe image is described as far as\n" +
			"that goes without following its references; the daemon would refuse it, or only store it." + examples(
			"glancectl disk info debian-12.qcow2",
			"glancectl disk info suspicious.vmdk -f json"),
		Flags:  []cli.Flag{formatFlag()},
		Action: diskAction(s, diskInfo),
	}
}

func diskInfo(c *cli.Context, p *printer, d *disk) error {
	size := d.file.Size()
	info, err := d.driver.Inspect(c.Context, []formats.Source{d.file})
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	refused := info.Refused
	var allocated any // of bytes; nil where the map cannot be read
	if refused == nil {
		n, err := allocatedBytes(c, d)
		if c.Context.Err() != nil {
			return c.Context.Err()
		}
		if err == nil {
			allocated = n
		}
		refused = err
	}
	return p.one(infoRecord(d.path, info, size, allocated, refused))
}

// allocatedBytes walks the map of the guest disk and adds up what lies in the file.
func allocatedBytes(c *cli.Context, d *disk) (int64, error) {
	g, err := d.guest(c)
	if err != nil {
		return 0, err
	}
	defer g.Close()
	var n int64
	err = g.Extents(c.Context, 0, g.Size(), func(x formats.Extent) bool {
		if x.Kind == formats.Data || x.Kind == formats.Compressed {
			n += x.Len
		}
		return c.Context.Err() == nil
	})
	return n, err
}

func infoRecord(path string, info formats.Info, size int64, allocated any, refused error) record {
	r := record{
		{name: "file", value: path},
		{name: "format", value: info.Format},
		{name: "variant", value: info.Variant},
		{name: "virtual_size", value: info.VirtualSize, text: exactBytes(info.VirtualSize)},
		{name: "allocated_size", value: allocated},
		{name: "file_size", value: size, text: exactBytes(size)},
		{name: "cluster_size", value: info.ClusterSize},
		{name: "encrypted", value: info.Encrypted},
		{name: "references", value: info.Refs, text: references(info.Refs)},
		{name: "snapshots", value: info.Snapshots, text: snapshotNames(info.Snapshots)},
		{name: "safe", value: refused == nil, text: "yes"},
		{name: "refused", value: nil},
	}
	if n, ok := allocated.(int64); ok {
		r[4].text = exactBytes(n)
	}
	if info.Refs == nil {
		r[8].value = []formats.Ref{}
	}
	if info.Snapshots == nil {
		r[9].value = []formats.Snapshot{}
	}
	if refused != nil {
		r[10].text = "no"
		r[11].value = refused.Error()
	}
	return r
}

// exactBytes is n for people and to the byte.
func exactBytes(n int64) string {
	if n < 1<<10 {
		return humanBytes(n)
	}
	return fmt.Sprintf("%s (%d bytes)", humanBytes(n), n)
}

func references(refs []formats.Ref) string {
	if len(refs) == 0 {
		return "none"
	}
	var parts []string
	for _, ref := range refs {
		text := fmt.Sprintf("%s %q", ref.Kind, ref.Name)
		if ref.Format != "" {
			text += " (" + ref.Format + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func snapshotNames(snapshots []formats.Snapshot) string {
	if len(snapshots) == 0 {
		return "none"
	}
	var names []string
	for _, s := range snapshots {
		name := s.ID
		if s.Name != "" {
			name = fmt.Sprintf("%s (id %s)", s.Name, s.ID)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
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
