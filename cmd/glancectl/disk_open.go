package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/container"
	"glanced/formats/container/spool"
	"glanced/formats/engine"
)

// bare is Glance's container_format word for an image that is in no container.
const bare = "bare"

// disk is an image as the disk commands see it: the file, the container around
// the image, the driver that it is read by, and the files that stand for what it
// refers to.
type disk struct {
	path       string
	file       *localfile.File
	fileInfo   os.FileInfo
	container  container.Container // Name "" = none
	opened     container.Opened    // what is in it; without a container, Image is file
	driver     formats.Driver
	formatSaid bool // by --format; else the content was probed
	snapshot   string
	engine     *engine.Engine
	refs       *references

	owned   bool // the image was handed to the engine, which closes it
	parents []*engine.Disk
}

// openDisk opens the file at path. The container and the format are those that o
// names; else those that the content begins like, and a container is looked for
// only where neither is named: what is declared is not probed.
func openDisk(ctx context.Context, path string, o diskOptions, e engine.Options) (*disk, error) {
	refs, err := parseRefs(o.refs)
	if err != nil {
		return nil, err
	}
	file, info, err := openSource(path)
	if err != nil {
		return nil, err
	}
	d := &disk{path: path, file: file, fileInfo: info, snapshot: o.snapshot, engine: engine.New(e), refs: refs}
	if err := d.recognise(ctx, o, all.Drivers(), all.Containers()); err != nil {
		d.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// recognise finds the container and the driver, and opens the container.
func (d *disk) recognise(ctx context.Context, o diskOptions, drivers []formats.Driver, boxes []container.Container) error {
	if err := d.unpack(ctx, o, drivers, boxes); err != nil {
		return err
	}
	if o.format != "" {
		d.driver, d.formatSaid = mustFind(drivers, o.format), true
		return nil
	}
	name, err := formats.DetectSource(ctx, drivers, d.opened.Image)
	if errors.Is(err, formats.ErrFormat) { // of two formats at once
		return &advised{err, "Say what it is with --format."}
	}
	if err != nil {
		return err
	}
	d.driver = mustFind(drivers, name)
	return nil
}

// unpack opens the container, if there is one.
func (d *disk) unpack(ctx context.Context, o diskOptions, drivers []formats.Driver, boxes []container.Container) error {
	d.opened.Image = d.file
	box, named := container.Find(boxes, o.container)
	if o.container == "" && o.format == "" {
		var err error
		if box, err = probeContainer(ctx, d.file, drivers, boxes); err != nil {
			return err
		}
	}
	if box.Open == nil {
		return nil
	}
	opened, err := box.Open(ctx, d.file, container.Options{Spool: spool.Temporary("")})
	switch {
	case err != nil && named && errors.Is(err, formats.ErrFormat):
		return &advised{err, "Leave --container out to have it found out, or say that there is none with --container bare."}
	case errors.Is(err, container.ErrNoDisk):
		return &advised{err, "To take the file itself for the disk, add --container bare."}
	case err != nil:
		return err
	}
	d.container, d.opened = box, opened
	return nil
}

// probeContainer is the container that the file begins like, if any. What is a
// disk image and a container at once is refused, as any file with two meanings.
func probeContainer(ctx context.Context, src stored.Bytes, drivers []formats.Driver, boxes []container.Container) (container.Container, error) {
	head, err := formats.ReadHead(ctx, src)
	if err != nil {
		return container.Container{}, err
	}
	var found []container.Container
	var names []string
	for _, box := range boxes {
		if box.Probe(head) {
			found, names = append(found, box), append(names, box.Name)
		}
	}
	if len(found) == 0 {
		return container.Container{}, nil
	}
	for _, f := range drivers {
		if f.Probe != nil && f.Probe(head) {
			names = append(names, f.Name)
		}
	}
	if len(names) > 1 {
		return container.Container{}, &advised{fmt.Errorf("%w: the content is %s at once", formats.ErrFormat, strings.Join(names, " and ")),
			"Say what it is with --container, or with --container bare and --format."}
	}
	return found[0], nil
}

// mustFind is the driver of a name that is known to be one.
func mustFind(drivers []formats.Driver, name string) formats.Driver {
	d, _ := formats.Find(drivers, name)
	return d
}

// close ends the use of the image; to be deferred, before its guest disk is opened.
func (d *disk) close() {
	for _, p := range slices.Backward(d.parents) {
		p.Close()
	}
	if !d.owned && d.opened.Image != nil {
		d.opened.Image.Close()
	}
	d.engine.Close()
	d.file.Close()
}

// name is what messages call the image: the file, and what it is called inside.
func (d *disk) name() string {
	if d.opened.Name != "" {
		return d.path + ": " + d.opened.Name
	}
	return d.path
}

// inspect describes the image from its metadata alone.
func (d *disk) inspect(ctx context.Context) (formats.Info, error) {
	info, err := d.driver.Inspect(ctx, d.opened.Image)
	if err == nil {
		return info, nil
	}
	err = fmt.Errorf("%s: %w", d.name(), err)
	if errors.Is(err, formats.ErrFormat) && d.formatSaid && d.container.Name == "" {
		if box, _ := probeContainer(ctx, d.file, nil, all.Containers()); box.Name != "" {
			return info, &advised{err, "It looks like a container: add --container " + box.Name + ", or leave --format out."}
		}
		return info, &advised{err, "Leave --format out to have it found out."}
	}
	return info, err
}

// alone refuses an image that is of another format than the one that --format names as
// well: the daemon refuses its upload, but for a raw one. Inside a container, the
// daemon looks for no other format either.
func (d *disk) alone(ctx context.Context) error {
	if !d.formatSaid || d.container.Name != "" || d.driver.Probe == nil {
		return nil
	}
	if _, err := formats.DetectSource(ctx, all.Drivers(), d.opened.Image); err != nil {
		return fmt.Errorf("%s: %w", d.name(), err)
	}
	return nil
}

// guest opens the guest disk, once, with the files that --ref names; to be closed
// before d. A --ref that the image has no use for is an error.
func (d *disk) guest(ctx context.Context) (*engine.Disk, error) {
	info, err := d.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.hasSnapshot(info); err != nil {
		return nil, fmt.Errorf("%s: %w", d.name(), err)
	}
	top := &link{d: d, file: d.fileInfo, driver: d.driver, source: d.opened.Image, beside: d.opened.Beside}
	d.owned = true
	g, err := top.open(ctx, d.snapshot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.name(), err)
	}
	if err := d.refs.unused(info.Refs); err != nil {
		g.Close()
		return nil, fmt.Errorf("%s: %w", d.name(), err)
	}
	return g, nil
}

// hasSnapshot refuses a --snapshot that the image does not list.
func (d *disk) hasSnapshot(info formats.Info) error {
	if d.snapshot == "" {
		return nil
	}
	for _, s := range info.Snapshots {
		if d.snapshot == s.ID || d.snapshot == s.Name {
			return nil
		}
	}
	return &advised{fmt.Errorf("%w %q", errNoSnapshot, d.snapshot), "Snapshots in it: " + snapshotNames(info.Snapshots)}
}

var errNoSnapshot = errors.New("the image has no snapshot")
