package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/catalog/fields"
)

// usages are what the options say that set a field of the image, in the order of the help.
var usages = []struct{ field, usage string }{
	{"name", "`NAME` of the image, 255 characters at most"},
	{"disk_format", "`FORMAT` of the disk: raw, qcow2, vmdk, ..."},
	{"container_format", "`FORMAT` of what the disk lies in: bare, ova, ..."},
	{"visibility", "`WHO` may use it: private, shared, community, public"},
	{"owner", "`PROJECT` that owns it (administrators only)"},
	{"min_disk", "disk that a server needs to boot it, `GIB`"},
	{"min_ram", "memory that a server needs to boot it, `MIB`"},
	{"protected", "refuse to delete it"},
	{"os_hidden", "leave it out of lists"},
	{"tags", "add the `TAG` (repeatable)"},
}

// optionName is the option that sets a field, or filters by it.
func optionName(field string) string {
	switch field {
	case "os_hidden":
		return "hidden"
	case "tags":
		return "tag"
	}
	return strings.ReplaceAll(field, "_", "-")
}

// optionOf is the option that c's command has for a field.
func optionOf(c *cli.Context, field string) (option string, ok bool) {
	option = optionName(field)
	return option, slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), option) })
}

// imageFlags are the fields that create and update both set.
func imageFlags() (flags []cli.Flag) {
	for _, u := range usages {
		flags = append(flags, flagOf(u.field, u.usage))
	}
	return append(flags, &cli.StringSliceFlag{Name: "property", Usage: "set the property `NAME=VALUE` (repeatable)"})
}

// flagOf is the option for a field, of the field's type.
func flagOf(field, usage string) cli.Flag {
	name := optionName(field)
	switch kindOf(field) {
	case fields.Integer:
		return &cli.Int64Flag{Name: name, Usage: usage}
	case fields.Boolean:
		return &cli.BoolFlag{Name: name, Usage: usage}
	case fields.List:
		return &cli.StringSliceFlag{Name: name, Usage: usage}
	}
	return &cli.StringFlag{Name: name, Usage: usage}
}

func kindOf(field string) fields.Kind {
	f, ok := fields.Find(field)
	if !ok {
		panic("an image has no field " + field)
	}
	return f.Kind
}

// setFields are the API fields, less tags and properties, that the options set.
func setFields(c *cli.Context) map[string]any {
	set := make(map[string]any)
	for _, u := range usages {
		option := optionName(u.field)
		if !c.IsSet(option) {
			continue
		}
		switch kindOf(u.field) {
		case fields.Text:
			set[u.field] = c.String(option)
		case fields.Integer:
			set[u.field] = c.Int64(option)
		case fields.Boolean:
			set[u.field] = c.Bool(option)
		}
	}
	return set
}
