package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

func imageHeldCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "held", Usage: "list deleted images whose data stays, and the images that stand on them", ArgsUsage: " ",
		Description: "The data goes with the last of the children, and counts against its owner's quota until then. For administrators, on the control socket." + examples(
			"glancectl image held", "glancectl image held -f json"),
		Action: reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
			held, err := api.Held(ctx)
			if err != nil {
				return err
			}
			var records []record
			for _, img := range held {
				records = append(records, heldRecord(img))
			}
			return p.list([]string{"id", "name", "owner", "size", "children"}, records)
		}),
	}
}

func heldRecord(img glanceapi.HeldImage) record {
	var name string
	var size int64
	if img.Name != nil {
		name = *img.Name
	}
	if img.Size != nil {
		size = *img.Size
	}
	var children []string
	for _, c := range img.Children {
		children = append(children, c.ID+" of "+c.Owner)
	}
	return record{
		{name: "id", value: img.ID},
		{name: "name", value: name},
		{name: "owner", value: img.Owner},
		{name: "size", value: size, text: humanBytes(size)},
		{name: "deleted_at", value: img.DeletedAt},
		{name: "children", value: img.Children, text: strings.Join(children, ", ")},
	}
}
