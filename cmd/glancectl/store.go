package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

func storeCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "store", Usage: "list the stores that keep the images' data, and try one",
		Description: "Stores are configured as [[stores]]." + examples(
			"glancectl store list",
			"glancectl store check far"),
		Subcommands: []*cli.Command{storeListCommand(s), storeCheckCommand(s)},
	}
}

func storeListCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the configured stores", ArgsUsage: " ",
		Description: "Room is unknown where a store does not tell." + examples(
			"glancectl store list", "glancectl store list -f value -c id"),
		Action: reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
			st, err := api.Status(ctx)
			if err != nil {
				return err
			}
			var records []record
			for _, x := range st.Stores {
				records = append(records, record{
					{name: "id", value: x.ID},
					{name: "type", value: x.Type},
					{name: "default", value: x.Default},
					{name: "read_only", value: x.ReadOnly},
					{name: "weight", value: x.Weight},
					{name: "free_bytes", value: x.FreeBytes, text: room(x.FreeBytes)},
					{name: "total_bytes", value: x.TotalBytes, text: room(x.TotalBytes)},
					{name: "description", value: x.Description},
				})
			}
			return p.list([]string{"id", "type", "default", "read_only", "weight", "free_bytes", "total_bytes", "description"}, records)
		}),
	}
}

// room is a number of bytes that may be unknown.
func room(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return humanBytes(n)
}

func storeCheckCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "try a store, and say what is wrong with it", ArgsUsage: "ID",
		Description: "The daemon writes a small object, reads it and deletes it; of a read-only store, it reads from an\n" +
			"image that lies there. The exit code is 1 if a step fails,\n" +
			"and the message says which and why." + examples(
			"glancectl store check far", "glancectl store check far -f json"),
		Action: asking(s, []string{"ID"}, func(c *cli.Context, args []string, p *printer, api *glanceapi.Client) error {
			check, err := api.CheckStore(c.Context, args[0])
			if err != nil {
				return adminOnly(api, err)
			}
			return printCheck(p, check)
		}),
	}
}

// printCheck prints a check that found nothing wrong; what it found is its error.
func printCheck(p *printer, check glanceapi.StoreCheck) error {
	var steps []string
	for _, step := range check.Steps {
		if step.Error != "" {
			steps = append(steps, fmt.Sprintf("cannot %s: %s", step.Name, step.Error))
			continue
		}
		steps = append(steps, step.Name+" works")
	}
	if !check.OK {
		return fmt.Errorf("store %s: %s", check.ID, strings.Join(steps, "; "))
	}
	if len(steps) == 0 {
		steps = []string{"nothing was tried: it is read-only, and no image lies there yet"}
	}
	return p.one(record{
		{name: "id", value: check.ID},
		{name: "ok", value: check.OK},
		{name: "steps", value: check.Steps, text: strings.Join(steps, ", ")},
	})
}
