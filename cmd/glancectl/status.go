package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

func statusCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show how the daemon is", ArgsUsage: " ",
		Description: "Version, listeners, images by status, room in the stores, memory." + examples(
			"glancectl status", "glancectl status -f json", "glancectl status -f value -c version"),
		Action: reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
			st, err := api.Status(ctx)
			if err != nil {
				return err
			}
			return p.one(statusRecord(st))
		}),
	}
}

func statusRecord(st glanceapi.Status) record {
	var listeners, stores, images []string
	for _, l := range st.Listeners {
		listeners = append(listeners, l.Kind+" "+l.Address)
	}
	for _, x := range st.Stores {
		text := fmt.Sprintf("%s (%s): room unknown", x.ID, x.Type)
		if x.TotalBytes >= 0 {
			text = fmt.Sprintf("%s (%s): %s of %s free", x.ID, x.Type, humanBytes(x.FreeBytes), humanBytes(x.TotalBytes))
		}
		if x.Default {
			text += ", default"
		}
		stores = append(stores, text)
	}
	for _, status := range slices.Sorted(maps.Keys(st.Images)) {
		images = append(images, fmt.Sprintf("%d %s", st.Images[status], status))
	}
	if len(images) == 0 {
		images = []string{"none"}
	}
	uptime := time.Duration(st.UptimeSeconds) * time.Second
	return record{
		{name: "version", value: st.Version},
		{name: "node", value: st.Node},
		{name: "started_at", value: st.StartedAt, text: humanTime(st.StartedAt)},
		{name: "uptime_seconds", value: st.UptimeSeconds, text: uptime.String()},
		{name: "data_dir", value: st.DataDir},
		{name: "mountpoint", value: st.Mountpoint},
		{name: "listeners", value: st.Listeners, text: strings.Join(listeners, ", ")},
		{name: "images", value: st.Images, text: strings.Join(images, ", ")},
		{name: "stores", value: st.Stores, text: strings.Join(stores, "; ")},
		{name: "memory", value: st.Memory, text: fmt.Sprintf("%s in use, budget %s", humanBytes(st.Memory.HeapBytes), humanBytes(st.Memory.BudgetBytes))},
	}
}

func exportsCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "exports", Usage: "list the NBD clients at work", ArgsUsage: " ",
		Description: "An export is named by the id of its image." + examples("glancectl exports", "glancectl exports -f value -c export -c peer"),
		Action: reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
			sessions, err := api.Sessions(ctx)
			if err != nil {
				return err
			}
			var records []record
			for _, x := range sessions {
				records = append(records, record{
					{name: "export", value: x.Export},
					{name: "peer", value: x.Peer},
					{name: "since", value: x.Since, text: humanTime(x.Since)},
					{name: "bytes_read", value: x.BytesRead, text: humanBytes(x.BytesRead)},
				})
			}
			return p.list([]string{"export", "peer", "since", "bytes_read"}, records)
		}),
	}
}

func mountsCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "mounts", Usage: "list where the images are mounted", ArgsUsage: " ",
		Description: "Below each: images/ID/disk, images/ID/file and by-name/NAME." + examples("glancectl mounts -f value"),
		Action: reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
			mounts, err := api.Mounts(ctx)
			if err != nil {
				return err
			}
			var records []record
			for _, m := range mounts {
				records = append(records, record{{name: "mountpoint", value: m.Mountpoint}})
			}
			return p.list([]string{"mountpoint"}, records)
		}),
	}
}

// reportAction is the frame of a command without arguments that asks the daemon
// and prints.
func reportAction(s streams, report func(context.Context, *glanceapi.Client, *printer) error) cli.ActionFunc {
	return asking(s, nil, func(c *cli.Context, _ []string, p *printer, api *glanceapi.Client) error {
		return adminOnly(api, report(c.Context, api, p))
	})
}
