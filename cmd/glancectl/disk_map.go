package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"glanced/formats"
	"glanced/formats/engine"
)

func diskMapCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "map", Usage: "show where the guest disk lies in an image file", ArgsUsage: "FILE",
		Description: "One line or object for each run of the guest disk, in order and without gaps:\n" +
			"   start, length  the run on the guest disk, bytes\n" +
			"   depth          how far down the chain of images it was found, 0 = this file\n" +
			"   kind           data, compressed, zero (hides what is below) or absent (reads as zeros)\n" +
			"   source         which of the image's files holds it: 0 = itself, then its data file or extents, in order\n" +
			"   offset         where it begins in that file; of compressed runs, where the cluster that holds it does\n" +
			"   stored         bytes that it, or its cluster, takes there\n" +
			readsAll + examples(
			"glancectl disk map debian-12.qcow2",
			"glancectl disk map debian-12.qcow2 -f json | jq 'map(select(.data)) | length'"),
		Flags: append(diskFlags(), progressFlags()...),
		Action: diskAction(s, func(c *cli.Context, p *printer, d *disk) error {
			return diskMap(c, s, p, d)
		}),
	}
}

// maxTableRuns bounds a map that is collected before it is printed.
const maxTableRuns = 100_000

func diskMap(c *cli.Context, s streams, p *printer, d *disk) error {
	if err := refuseDigests(c, s, d); err != nil {
		return err
	}
	g, err := d.guest(c.Context)
	if err != nil {
		return err
	}
	defer g.Close()
	if p.format == "json" && len(p.pick) == 0 {
		if err := mapJSON(c, g, p.out); err != nil {
			return fmt.Errorf("%s: %w", d.name(), err)
		}
		return nil
	}
	var records []record
	err = g.Extents(c.Context, 0, g.Size(), func(x formats.Extent) bool {
		records = append(records, extentRecord(x))
		return len(records) <= maxTableRuns
	})
	if len(records) > maxTableRuns {
		return &advised{fmt.Errorf("%s: its map has more than %d runs", d.name(), maxTableRuns), "A map of any length is written with -f json, without -c."}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.name(), err)
	}
	return p.list([]string{"start", "length", "depth", "kind", "source", "offset", "stored"}, records)
}

// extentRecord names a run's properties as `qemu-img map` does where it has the same ones.
func extentRecord(x formats.Extent) record {
	inFile := x.Kind.Stored()
	r := record{
		{name: "start", value: x.Off},
		{name: "length", value: x.Len},
		{name: "depth", value: x.Depth},
		{name: "kind", value: x.Kind.String()},
		{name: "zero", value: !inFile},
		{name: "data", value: inFile},
		{name: "compressed", value: x.Kind == formats.Compressed},
	}
	if inFile {
		r = append(r, field{name: "source", value: x.Src}, field{name: "offset", value: x.Pos}, field{name: "stored", value: x.N})
	}
	return r
}

// runJSON is an extentRecord as JSON. A map can have millions of runs, so that it
// is not made from the record.
type runJSON struct {
	Start      int64  `json:"start"`
	Length     int64  `json:"length"`
	Depth      int    `json:"depth"`
	Kind       string `json:"kind"`
	Zero       bool   `json:"zero"`
	Data       bool   `json:"data"`
	Compressed bool   `json:"compressed"`
}

// storedRunJSON is one that lies in a file.
type storedRunJSON struct {
	runJSON
	Source int   `json:"source"`
	Offset int64 `json:"offset"`
	Stored int64 `json:"stored"`
}

// extentJSON is what of extentRecord's properties an extent has, as JSON.
func extentJSON(x formats.Extent) any {
	inFile := x.Kind.Stored()
	r := runJSON{x.Off, x.Len, x.Depth, x.Kind.String(), !inFile, inFile, x.Kind == formats.Compressed}
	if !inFile {
		return r
	}
	return storedRunJSON{r, x.Src, x.Pos, x.N}
}

// mapJSON writes the array a run at a time: the map of a large image is too long
// to be collected first.
func mapJSON(c *cli.Context, g *engine.Disk, out io.Writer) error {
	w := bufio.NewWriterSize(out, 64<<10)
	before := "["
	var failed error
	err := g.Extents(c.Context, 0, g.Size(), func(x formats.Extent) bool {
		var text []byte
		if text, failed = json.Marshal(extentJSON(x)); failed == nil {
			w.WriteString(before) // what fails here fails again at the next
			_, failed = w.Write(text)
		}
		before = ",\n"
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	if before == "[" {
		fmt.Fprint(w, before)
	}
	fmt.Fprintln(w, "]")
	return w.Flush()
}
