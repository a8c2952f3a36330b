package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"glanced/formats"
	"glanced/formats/container"
)

// readsAll is what the help of a command says that compares digests.
const readsAll = "An OVA that has a manifest is read whole first, to compare the digests; one that they contradict is\n" +
	"not safe, and refused."

// refuseDigests refuses an image whose container the container's own list of digests
// contradicts, as the daemon refuses its upload. It reads all of the file if there is
// such a list. What else is wrong with the list is no reason: it says nothing then.
func refuseDigests(c *cli.Context, s streams, d *disk) error {
	if !d.opened.Digests {
		return nil
	}
	wrong, err := compareDigests(c, s, d)
	if err != nil {
		return err
	}
	if errors.Is(wrong, container.ErrDigest) {
		return &advised{fmt.Errorf("%s: %w", d.path, wrong), "Get a good copy of it: this one is not what was packed."}
	}
	return nil
}

// compareDigests streams the container by its verifier. wrong is what is wrong with
// the container; err is why that is not known.
func compareDigests(c *cli.Context, s streams, d *disk) (wrong, err error) {
	v := d.container.Verify()
	bar := startProgress(c, s, "digests", d.file.Size())
	err = copyInOrder(c.Context, v, d.file, bar)
	bar.finish()
	if closed := v.Close(); err == nil {
		err = closed
	}
	switch {
	case c.Context.Err() != nil:
		return nil, c.Context.Err()
	case err == nil:
		return nil, nil
	case formats.IsRefusal(err), errors.Is(err, formats.ErrFormat), errors.Is(err, container.ErrDigest):
		return err, nil
	}
	return nil, fmt.Errorf("%s: %w", d.path, err)
}
