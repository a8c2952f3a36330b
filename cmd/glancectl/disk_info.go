package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/formats"
	"glanced/formats/engine"
)

func diskInfoCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "say what a disk image is, and whether it is safe", ArgsUsage: "FILE",
		Description: "allocated_size is how much of the guest disk holds data. An unsafe image is described as far as\n" +
			"that goes without following its references; the daemon would refuse it, or only store it.\n" +
			"Where all that it refers to is named with --ref and opens, it is safe with those files.\n" +
			readsAll + examples(
			"glancectl disk info debian-12.qcow2",
			"glancectl disk info suspicious.vmdk -f json",
			"glancectl disk info child.qcow2 --ref base.qcow2=/srv/base.qcow2"),
		Flags: append(diskFlags(), progressFlags()...),
		Action: diskAction(s, func(c *cli.Context, p *printer, d *disk) error {
			return diskInfo(c, s, p, d)
		}),
	}
}

func diskInfo(c *cli.Context, s streams, p *printer, d *disk) error {
	info, err := d.inspect(c.Context)
	if err != nil {
		return err
	}
	size, allocated := info.VirtualSize, any(nil)
	refused := refuseDigests(c, s, d)
	if refused == nil {
		refused = d.alone(c.Context)
	}
	var g *engine.Disk
	if refused == nil {
		g, refused = d.guest(c.Context)
	}
	if refused == nil {
		defer g.Close()
		size = g.Size()
		var n int64
		if n, refused = allocatedBytes(c.Context, g); refused == nil {
			allocated = n
		}
	}
	if c.Context.Err() != nil {
		return c.Context.Err()
	}
	// What the user asked for and is not there says nothing of the image.
	if errors.Is(refused, errGiven) || errors.Is(refused, errNoSnapshot) {
		return refused
	}
	info.VirtualSize = size
	return p.one(infoRecord(d, info, allocated, refused))
}

// allocatedBytes walks the map of the guest disk and adds up what lies in files.
func allocatedBytes(ctx context.Context, g *engine.Disk) (int64, error) {
	var n int64
	err := g.Extents(ctx, 0, g.Size(), func(x formats.Extent) bool {
		if x.Kind.Stored() {
			n += x.Len
		}
		return ctx.Err() == nil
	})
	return n, err
}

func infoRecord(d *disk, info formats.Info, allocated any, refused error) record {
	r := record{
		{name: "file", value: d.path},
		{name: "container", value: orNull(d.container.Name)},
		{name: "inner_name", value: orNull(d.opened.Name)},
		{name: "inner_size", value: nil},
		{name: "other_disks", value: orEmpty(d.opened.Others), text: strings.Join(d.opened.Others, ", ")},
		{name: "format", value: info.Format},
		{name: "variant", value: info.Variant},
		{name: "virtual_size", value: info.VirtualSize, text: exactBytes(info.VirtualSize)},
		{name: "allocated_size", value: allocated},
		{name: "file_size", value: d.file.Size(), text: exactBytes(d.file.Size())},
		{name: "cluster_size", value: info.ClusterSize},
		{name: "encrypted", value: info.Encrypted},
		{name: "identity", value: orNull(info.Identity)},
		{name: "references", value: orEmpty(info.Refs), text: referenceNames(info.Refs)},
		{name: "opened", value: orEmpty(d.refs.opened), text: openedNames(d.refs.opened)},
		{name: "snapshots", value: orEmpty(info.Snapshots), text: snapshotNames(info.Snapshots)},
		{name: "bitmaps", value: orEmpty(info.Bitmaps), text: orNone(strings.Join(info.Bitmaps, ", "))},
		{name: "safe", value: refused == nil, text: "yes"},
		{name: "refused", value: nil},
	}
	set := func(name string, value any, text string) {
		for i := range r {
			if r[i].name == name {
				r[i].value, r[i].text = value, text
			}
		}
	}
	if d.container.Name != "" {
		set("inner_size", d.opened.Image.Size(), exactBytes(d.opened.Image.Size()))
	}
	if n, ok := allocated.(int64); ok {
		set("allocated_size", n, exactBytes(n))
	}
	if refused != nil {
		set("safe", false, "no")
		text := refused.Error()
		if hint := advice(refused); hint != "" && len(info.Refs) > 0 {
			text += "; " + hint
		}
		set("refused", refused.Error(), text)
	}
	return r
}

// orNull is a text as a JSON value, null where there is none.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// orEmpty is a list as a JSON value, never null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// exactBytes is n for people and to the byte.
func exactBytes(n int64) string {
	if n < 1<<10 {
		return humanBytes(n)
	}
	return fmt.Sprintf("%s (%d bytes)", humanBytes(n), n)
}

func referenceNames(refs []formats.Ref) string {
	var parts []string
	for _, ref := range refs {
		text := fmt.Sprintf("%s %q", ref.Kind, ref.Name)
		var more []string
		if ref.Format != "" {
			more = append(more, ref.Format)
		}
		if ref.Identity != "" {
			more = append(more, "identity "+ref.Identity)
		}
		if len(more) > 0 {
			text += " (" + strings.Join(more, ", ") + ")"
		}
		parts = append(parts, text)
	}
	return orNone(strings.Join(parts, ", "))
}

func openedNames(opened []openedRef) string {
	var parts []string
	for _, o := range opened {
		text := fmt.Sprintf("%s %q = %s", o.Kind, o.Name, o.File)
		switch {
		case o.Probed:
			text += " (" + o.Format + ", as its content says: the image that refers to it does not)"
		case o.Format != "":
			text += " (" + o.Format + ")"
		}
		parts = append(parts, text)
	}
	return orNone(strings.Join(parts, ", "))
}

func snapshotNames(snapshots []formats.Snapshot) string {
	var names []string
	for _, s := range snapshots {
		name := s.ID
		if s.Name != "" {
			name = fmt.Sprintf("%s (id %s)", s.Name, s.ID)
		}
		names = append(names, name+", "+humanBytes(s.VirtualSize))
	}
	return orNone(strings.Join(names, "; "))
}
