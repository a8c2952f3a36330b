package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/formats"
	"glanced/formats/container"
)

func diskCheckCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "read all of a disk image and say what is wrong with it", ArgsUsage: "FILE",
		Description: "Looks up where every part of the guest disk lies, decodes every compressed cluster, reads all data,\n" +
			"and compares the digests of an OVA's manifest. Two parts of the disk that lie at one place of a file\n" +
			"are wrong, unless compressed. A bad place does not end the check. Of the images below, it is what\n" +
			"shows through that is checked. Exit code 1 when anything is wrong." + examples(
			"glancectl disk check debian-12.qcow2",
			"glancectl disk check appliance.ova -f json",
			"glancectl disk check child.qcow2 --ref base.qcow2=/srv/base.qcow2"),
		Flags: append(diskFlags(), progressFlags()...),
		Action: diskAction(s, func(c *cli.Context, p *printer, d *disk) error {
			return diskCheck(c, s, p, d)
		}),
	}
}

func diskCheck(c *cli.Context, s streams, p *printer, d *disk) error {
	digests, err := checkDigests(c, s, d)
	if err != nil {
		return err
	}
	g, err := d.guest(c.Context)
	if err != nil {
		if digests != "" && digests != digestsOK {
			err = fmt.Errorf("%w; and %s", err, digests)
		}
		return err
	}
	defer g.Close()
	k := &checker{disk: g}
	if err := k.run(c, s); err != nil {
		return fmt.Errorf("check %s: %w", d.name(), err)
	}
	if err := p.one(checkRecord(d, g, k, digests)); err != nil {
		return err
	}
	return checkVerdict(d, k, digests)
}

// checkDigests streams the container by its verifier: "" where there is nothing
// to verify, else ok or what is wrong. It fails where the file cannot be read.
func checkDigests(c *cli.Context, s streams, d *disk) (string, error) {
	if d.container.Verify == nil {
		return "", nil
	}
	v := d.container.Verify()
	bar := startProgress(c, s, "digests", d.file.Size())
	err := copyInOrder(c.Context, v, d.file, bar)
	bar.finish()
	if closed := v.Close(); err == nil {
		err = closed
	}
	switch {
	case c.Context.Err() != nil:
		return "", c.Context.Err()
	case err == nil:
		return digestsOK, nil
	case formats.IsRefusal(err), errors.Is(err, formats.ErrFormat), errors.Is(err, container.ErrDigest):
		return err.Error(), nil
	}
	return "", fmt.Errorf("%s: %w", d.path, err)
}

const digestsOK = "ok"

func checkRecord(d *disk, g *formats.Disk, k *checker, digests string) record {
	n := &k.counts
	r := record{
		{name: "file", value: d.path},
		{name: "container", value: orNull(d.container.Name)},
		{name: "digests", value: orNull(digests)},
		{name: "format", value: d.driver.Name},
		{name: "virtual_size", value: g.Size(), text: exactBytes(g.Size())},
	}
	for _, kind := range []formats.Kind{formats.Data, formats.Compressed, formats.Zero, formats.Absent} {
		r = append(r,
			field{name: kind.String() + "_bytes", value: n.bytes[kind], text: exactBytes(n.bytes[kind])},
			field{name: kind.String() + "_extents", value: n.extents[kind]})
	}
	allocated := n.bytes[formats.Data] + n.bytes[formats.Compressed]
	return append(r,
		field{name: "allocated_bytes", value: allocated, text: exactBytes(allocated)},
		field{name: "read_bytes", value: k.read.Load(), text: exactBytes(k.read.Load())},
		field{name: "corrupt_bytes", value: k.faults.bytes, text: exactBytes(k.faults.bytes)},
		field{name: "corrupt_places", value: k.faults.count},
		field{name: "corrupt", value: orEmpty(k.faults.list), text: faultNames(k.faults)},
		field{name: "complete", value: k.gaveUp == "", text: orYes(k.gaveUp)},
		field{name: "ok", value: k.sound(digests), text: yesNo(k.sound(digests))},
	)
}

func (k *checker) sound(digests string) bool {
	return k.faults.count == 0 && k.gaveUp == "" && (digests == "" || digests == digestsOK)
}

func checkVerdict(d *disk, k *checker, digests string) error {
	if k.sound(digests) {
		return nil
	}
	var wrong []string
	if digests != "" && digests != digestsOK {
		wrong = append(wrong, digests)
	}
	if k.faults.count > 0 {
		wrong = append(wrong, fmt.Sprintf("%d bad places (%s of the guest disk), the first at guest offset %d: %s",
			k.faults.count, humanBytes(k.faults.bytes), k.faults.list[0].Offset, k.faults.list[0].Reason))
	}
	if k.gaveUp != "" {
		wrong = append(wrong, k.gaveUp)
	}
	return &advised{fmt.Errorf("%s: %w: %s", d.name(), formats.ErrCorrupt, strings.Join(wrong, "; ")),
		"Get a good copy of it: this one is not what was written."}
}

func orYes(gaveUp string) string {
	if gaveUp == "" {
		return "yes"
	}
	return "no: " + gaveUp
}

func yesNo(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

func faultNames(f faults) string {
	const shown = 5
	var parts []string
	for _, x := range f.list[:min(len(f.list), shown)] {
		parts = append(parts, fmt.Sprintf("%d bytes at %d", x.Length, x.Offset))
	}
	if f.count > shown {
		parts = append(parts, fmt.Sprintf("and %d more", f.count-shown))
	}
	return orNone(strings.Join(parts, ", "))
}
