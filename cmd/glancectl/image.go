package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"glanced/catalog/fields"
	"glanced/cmd/glancectl/internal/glanceapi"
)

func imageCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "create, list, show, change, delete, upload and download images",
		Description: "An image is named by its id, or by its name where only one image has it." + examples(
			"glancectl image list",
			"glancectl image create --name debian-12 --file debian-12.qcow2"),
		Subcommands: []*cli.Command{
			imageCreateCommand(s), imageListCommand(s), imageShowCommand(s), imageUpdateCommand(s), imageDeleteCommand(s),
			imageUploadCommand(s), imageDownloadCommand(s), imageDeactivateCommand(s), imageReactivateCommand(s), imageHeldCommand(s),
		},
	}
}

func imageShowCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "show all that is known of an image", ArgsUsage: "ID|NAME",
		Description: "Prints the fields of one image, its own properties last." + examples(
			"glancectl image show debian-12",
			"glancectl image show debian-12 -f value -c os_hash_value"),
		Action: asking(s, []string{"ID|NAME"}, func(c *cli.Context, args []string, p *printer, api *glanceapi.Client) error {
			img, err := findImage(c.Context, api, args[0])
			if err != nil {
				return err
			}
			return printImage(p, img)
		}),
	}
}

func imageDeleteCommand(s streams) *cli.Command {
	return eachImageCommand(s, &cli.Command{
		Name: "delete", Usage: "delete images and their data",
		Description: "Goes on with the others when one cannot be deleted, and then exits with 1." + examples(
			"glancectl image delete debian-11",
			"glancectl image delete 6f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a01 debian-10"),
	}, "deleted", (*glanceapi.Client).Delete)
}

func imageDeactivateCommand(s streams) *cli.Command {
	return eachImageCommand(s, &cli.Command{
		Name: "deactivate", Usage: "bar the data of images from all but administrators",
		Description: "NBD exports and files of the image end at once." + examples("glancectl image deactivate debian-12"),
	}, "deactivated", (*glanceapi.Client).Deactivate)
}

func imageReactivateCommand(s streams) *cli.Command {
	return eachImageCommand(s, &cli.Command{
		Name: "reactivate", Usage: "make deactivated images usable again",
		Description: "Undoes glancectl image deactivate." + examples("glancectl image reactivate debian-12"),
	}, "reactivated", (*glanceapi.Client).Reactivate)
}

// eachImageCommand completes cmd to one that does something to each image named,
// and says done of it on stderr.
func eachImageCommand(s streams, cmd *cli.Command, done string, do func(*glanceapi.Client, context.Context, string) error) *cli.Command {
	cmd.ArgsUsage = "ID|NAME..."
	cmd.Action = func(c *cli.Context) error {
		if !c.Args().Present() {
			return usagef(c, "ID|NAME is missing")
		}
		api, err := connect(c)
		if err != nil {
			return err
		}
		defer api.Close()
		var failed []error
		for _, name := range c.Args().Slice() {
			img, err := findImage(c.Context, api, name)
			if err == nil {
				err = do(api, c.Context, img.ID())
			}
			if err != nil {
				failed = append(failed, fmt.Errorf("image %s not %s: %w", name, done, err))
				if c.Context.Err() != nil {
					break
				}
				continue
			}
			fmt.Fprintf(s.err, "image %s %s\n", img.ID(), done)
		}
		if len(failed) == 0 {
			return nil
		}
		for _, err := range failed[:len(failed)-1] {
			fmt.Fprintf(s.err, "glancectl: %s\n", printable(err.Error()))
		}
		return failed[len(failed)-1]
	}
	return cmd
}

// findImage is the image that a person means by arg: its id, or its exact name,
// which only one image may bear. All that the caller may see counts, community
// and hidden images too.
func findImage(ctx context.Context, api *glanceapi.Client, arg string) (glanceapi.Image, error) {
	if arg == "" {
		return nil, fmt.Errorf("an empty name names no image")
	}
	if id, err := uuid.Parse(arg); err == nil {
		// First as it is spelled: an id may be in capitals, and then is another one.
		for _, spelled := range slices.Compact([]string{arg, id.String()}) {
			img, err := api.Get(ctx, spelled)
			if e, ok := err.(*glanceapi.Error); !ok || e.Status != http.StatusNotFound {
				return img, err
			}
		}
	}
	var found []glanceapi.Image
	for _, hidden := range []bool{false, true} {
		q := url.Values{"name": {exactly(arg)}, "visibility": {"all"}, "os_hidden": {strconv.FormatBool(hidden)}}
		for img, err := range api.List(ctx, q, 0) {
			if err != nil {
				return nil, fmt.Errorf("look for an image named %s: %w", arg, err)
			}
			// One that is hidden or shown meanwhile is listed twice.
			known := slices.ContainsFunc(found, func(f glanceapi.Image) bool { return f.ID() == img.ID() })
			if img.Name() == arg && !known {
				found = append(found, img)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, &advised{fmt.Errorf("there is no image with the id or name %s", arg), "See what there is with: glancectl image list --all"}
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, img := range found {
		ids = append(ids, fmt.Sprintf("   %s  %s, created %s", img.ID(), printable(img.String("status")), printable(img.String("created_at"))))
	}
	return nil, &advised{fmt.Errorf("%d images are named %s", len(found), arg), "Say which by its id:\n" + strings.Join(ids, "\n")}
}

// exactly is a filter value that matches name and nothing else: Glance reads a
// leading "in:" as a list, in which quotes hold an element together.
func exactly(name string) string {
	if strings.HasPrefix(name, "in:") && !strings.Contains(name, `"`) {
		return `in:"` + name + `"`
	}
	return name
}

// printImage prints an image, its own properties last; the parts of the API's
// plumbing (links, locations) only in JSON or when asked for.
func printImage(p *printer, img glanceapi.Image) error {
	p.open = true
	r := imageRecord(img)
	if p.format != "json" && len(p.pick) == 0 {
		r = slices.DeleteFunc(r, func(shown field) bool {
			f, ok := fields.Find(shown.name)
			return ok && f.Link
		})
	}
	return p.one(r)
}

// imageRecord is img with the API's fields first and properties in alphabetical order.
func imageRecord(img glanceapi.Image) record {
	var r record
	for _, f := range fields.All() {
		v, ok := img[f.Name]
		if !ok || !f.Base() {
			continue
		}
		shown := field{name: f.Name, value: v}
		if n, isNumber := img.Int(f.Name); isNumber && f.Bytes {
			shown.text = humanBytes(n)
		}
		r = append(r, shown)
	}
	var own []string
	for name := range img {
		if !fields.IsBase(name) {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	for _, name := range own {
		r = append(r, field{name: name, value: img[name]})
	}
	return r
}

// properties reads k=v arguments of --property; what belongs to the API's own
// fields is refused with the way to set it.
func properties(c *cli.Context) (map[string]string, error) {
	props := make(map[string]string)
	for _, kv := range c.StringSlice("property") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef(c, "--property %q is not of the form NAME=VALUE", kv)
		}
		if err := ownProperty(c, k); err != nil {
			return nil, err
		}
		if _, twice := props[k]; twice {
			return nil, usagef(c, "--property %s is given twice", k)
		}
		props[k] = v
	}
	return props, nil
}

// ownProperty refuses a property name that is a field of the API, or kept for the server.
func ownProperty(c *cli.Context, name string) error {
	if !fields.IsBase(name) && !fields.Reserved(name) {
		return nil
	}
	if option, ok := optionOf(c, name); ok {
		return usagef(c, "%s is a field, not a property: use --%s", name, option)
	}
	return usagef(c, "%s is a field that only the server sets", name)
}
