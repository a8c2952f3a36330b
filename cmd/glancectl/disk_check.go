package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/formats"
	"glanced/formats/check"
	"glanced/formats/engine"
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
	digests := ""
	if d.container.Verify != nil {
		wrong, err := compareDigests(c, s, d)
		if err != nil {
			return err
		}
		if digests = digestsOK; wrong != nil {
			digests = wrong.Error()
		}
	}
	g, err := d.guest(c.Context)
	if err != nil {
		if digests != "" && digests != digestsOK {
			err = fmt.Errorf("%w; and %s", err, digests)
		}
		return err
	}
	defer g.Close()
	var bar *progress
	k, err := check.Disk(c.Context, g, check.Progress{
		Begin: func(total int64) { bar = startProgress(c, s, "check", total) },
		Read:  func(n int64) { bar.Update(n) },
	})
	bar.finish()
	if err != nil {
		return fmt.Errorf("check %s: %w", d.name(), err)
	}
	if err := p.one(checkRecord(d, g, k, digests)); err != nil {
		return err
	}
	return checkVerdict(d, k, digests)
}

const digestsOK = "ok"

func checkRecord(d *disk, g *engine.Disk, k *check.Result, digests string) record {
	r := record{
		{name: "file", value: d.path},
		{name: "container", value: orNull(d.container.Name)},
		{name: "digests", value: orNull(digests)},
		{name: "format", value: d.driver.Name},
		{name: "virtual_size", value: g.Size(), text: exactBytes(g.Size())},
	}
	for _, kind := range []formats.Kind{formats.Data, formats.Compressed, formats.Zero, formats.Absent} {
		r = append(r,
			field{name: kind.String() + "_bytes", value: k.Bytes[kind], text: exactBytes(k.Bytes[kind])},
			field{name: kind.String() + "_extents", value: k.Extents[kind]})
	}
	allocated := k.Bytes[formats.Data] + k.Bytes[formats.Compressed]
	return append(r,
		field{name: "allocated_bytes", value: allocated, text: exactBytes(allocated)},
		field{name: "read_bytes", value: k.Read, text: exactBytes(k.Read)},
		field{name: "corrupt_bytes", value: k.Faults.Bytes, text: exactBytes(k.Faults.Bytes)},
		field{name: "corrupt_places", value: k.Faults.Count},
		field{name: "corrupt", value: orEmpty(k.Faults.List), text: faultNames(k.Faults)},
		field{name: "complete", value: k.GaveUp == "", text: orYes(k.GaveUp)},
		field{name: "ok", value: sound(k, digests), text: yesNo(sound(k, digests))},
	)
}

func sound(k *check.Result, digests string) bool {
	return k.Faults.Count == 0 && k.GaveUp == "" && (digests == "" || digests == digestsOK)
}

func checkVerdict(d *disk, k *check.Result, digests string) error {
	if sound(k, digests) {
		return nil
	}
	var wrong []string
	if digests != "" && digests != digestsOK {
		wrong = append(wrong, digests)
	}
	if k.Faults.Count > 0 {
		wrong = append(wrong, fmt.Sprintf("%d bad places (%s of the guest disk), the first at guest offset %d: %s",
			k.Faults.Count, humanBytes(k.Faults.Bytes), k.Faults.List[0].Offset, k.Faults.List[0].Reason))
	}
	if k.GaveUp != "" {
		wrong = append(wrong, k.GaveUp)
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

func faultNames(f check.Faults) string {
	const shown = 5
	var parts []string
	for _, x := range f.List[:min(len(f.List), shown)] {
		parts = append(parts, fmt.Sprintf("%d bytes at %d", x.Length, x.Offset))
	}
	if f.Count > shown {
		parts = append(parts, fmt.Sprintf("and %d more", f.Count-shown))
	}
	return orNone(strings.Join(parts, ", "))
}
