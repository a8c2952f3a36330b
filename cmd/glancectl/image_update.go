package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"glanced/catalog/fields"
	"glanced/cmd/glancectl/internal/glanceapi"
)

func imageUpdateCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "update", Usage: "change an image's fields, properties and tags", ArgsUsage: "ID|NAME",
		Description: "Fields and properties are changed together or not at all; tags after them, one by one.\n" +
			"Options that are not given leave their field as it is." + examples(
			"glancectl image update debian-12 --name debian-12-old --hidden",
			"glancectl image update debian-12 --property os_version=12.8 --remove-property draft",
			"glancectl image update debian-12 --protected=false --tag lts --remove-tag testing"),
		Flags: append(imageFlags(),
			&cli.StringSliceFlag{Name: "remove-property", Usage: "remove the property `NAME` (repeatable)"},
			&cli.StringSliceFlag{Name: "remove-tag", Usage: "remove the `TAG` (repeatable)"},
		),
		Action: asking(s, []string{"ID|NAME"}, func(c *cli.Context, args []string, p *printer, api *glanceapi.Client) error {
			return updateImage(c, args[0], p, api)
		}),
	}
}

func updateImage(c *cli.Context, name string, p *printer, api *glanceapi.Client) error {
	ops, err := updateOps(c)
	if err != nil {
		return err
	}
	add, remove := c.StringSlice("tag"), c.StringSlice("remove-tag")
	if len(ops)+len(add)+len(remove) == 0 {
		return usagef(c, "nothing to change: name a field, a property or a tag")
	}
	img, err := findImage(c.Context, api, name)
	if err != nil {
		return err
	}
	id := img.ID()
	if len(ops) > 0 {
		if img, err = api.Update(c.Context, id, ops); err != nil {
			return fmt.Errorf("update image %s: %w", id, err)
		}
	}
	for _, tag := range add {
		if err := api.AddTag(c.Context, id, tag); err != nil {
			return fmt.Errorf("add the tag %s to image %s: %w", tag, id, err)
		}
	}
	for _, tag := range remove {
		if err := api.RemoveTag(c.Context, id, tag); err != nil {
			return fmt.Errorf("remove the tag %s from image %s: %w", tag, id, err)
		}
	}
	if len(add)+len(remove) > 0 {
		if img, err = api.Get(c.Context, id); err != nil {
			return fmt.Errorf("the image was updated, but cannot be shown: %w", err)
		}
	}
	return printImage(p, img)
}

// updateOps turns the options into a patch, in an order that does not vary.
func updateOps(c *cli.Context) ([]glanceapi.Op, error) {
	var ops []glanceapi.Op
	set := setFields(c)
	for _, f := range fields.All() {
		if v, ok := set[f.Name]; ok {
			ops = append(ops, glanceapi.Op{Op: "replace", Path: glanceapi.Pointer(f.Name), Value: v})
		}
	}
	props, err := properties(c)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range props {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names { // "add" also replaces
		ops = append(ops, glanceapi.Op{Op: "add", Path: glanceapi.Pointer(name), Value: props[name]})
	}
	for _, name := range c.StringSlice("remove-property") {
		if fields.IsBase(name) {
			return nil, usagef(c, "%s is a field, which cannot be removed", name)
		}
		if _, both := props[name]; both {
			return nil, usagef(c, "the property %s is both set and removed", name)
		}
		ops = append(ops, glanceapi.Op{Op: "remove", Path: glanceapi.Pointer(name)})
	}
	return ops, nil
}
