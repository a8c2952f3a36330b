package main

import (
	"net/url"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/catalog/fields"
	"glanced/cmd/glancectl/internal/glanceapi"
)

func imageListCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list images", ArgsUsage: " ",
		Description: "Lists every page of what matches all filters. Community images of others and hidden images\n" +
			"are left out unless --all asks for them. With -c any field or property can be a column." + examples(
			"glancectl image list --status active --sort name:asc",
			"glancectl image list --property os_distro=debian -c id -c name -c os_distro",
			"glancectl image list --all -f json"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "only images named `NAME`"},
			&cli.StringFlag{Name: "status", Usage: "only of `STATUS`: queued, saving, active, deactivated, ..."},
			&cli.StringFlag{Name: "visibility", Usage: "only of `VISIBILITY`: public, private, shared, community, all"},
			&cli.StringFlag{Name: "disk-format", Usage: "only of `FORMAT`: raw, qcow2, vmdk, ..."},
			&cli.StringFlag{Name: "container-format", Usage: "only of container `FORMAT`: bare, ova, ..."},
			&cli.StringFlag{Name: "owner", Usage: "only of the project `OWNER`"},
			&cli.StringSliceFlag{Name: "tag", Usage: "only with the `TAG` (repeatable: with all of them)"},
			&cli.StringSliceFlag{Name: "property", Usage: "only with the property `NAME=VALUE` (repeatable)"},
			&cli.StringFlag{Name: "sort", Usage: "order by `KEY[:asc|:desc],...`, for instance name:asc,created_at:desc"},
			&cli.IntFlag{Name: "limit", Usage: "at most `N` images (0 = all)"},
			&cli.BoolFlag{Name: "hidden", Usage: "only hidden images"},
			&cli.BoolFlag{Name: "all", Usage: "all that you may see: community images of others too, and hidden ones after the rest"},
		},
		Action: asking(s, nil, func(c *cli.Context, _ []string, p *printer, api *glanceapi.Client) error {
			queries, err := listQueries(c)
			if err != nil {
				return err
			}
			var records []record
			for _, q := range queries {
				left := c.Int("limit") - len(records)
				if c.Int("limit") > 0 && left == 0 {
					break
				}
				for img, err := range api.List(c.Context, q, max(left, 0)) {
					if err != nil {
						return err
					}
					records = append(records, imageRecord(img))
				}
			}
			p.open = true
			return p.list([]string{"id", "name", "status", "disk_format", "size", "visibility"}, records)
		}),
	}
}

// filterable refuses a name that --property cannot filter by: one that another option is
// for, and one that means something else to the server. Fields that have no option here,
// such as checksum and size_min, filter as properties do.
func filterable(c *cli.Context, name string) error {
	by, filters := fields.Filtered(name)
	if filters {
		if option, ok := optionOf(c, by.Field.Name); ok {
			return usagef(c, "--property %s: that is no property, use --%s", name, option)
		}
		return nil
	}
	if fields.IsBase(name) || slices.Contains(fields.ListParameters, name) {
		return usagef(c, "--property %s: that is no property", name)
	}
	return nil
}

// listQueries turns the filters into API queries: one, or with --all a second
// one for hidden images, because Glance lists either kind but not both.
func listQueries(c *cli.Context) ([]url.Values, error) {
	if c.Int("limit") < 0 {
		return nil, usagef(c, "--limit %d is below 0", c.Int("limit"))
	}
	if c.Bool("all") && c.Bool("hidden") {
		return nil, usagef(c, "--all lists hidden images too; give one of --all and --hidden")
	}
	q := url.Values{}
	for _, key := range []string{"status", "visibility", "disk_format", "container_format", "owner", "sort"} {
		if v := c.String(optionName(key)); v != "" {
			q.Set(key, v)
		}
	}
	if c.IsSet("name") {
		q.Set("name", exactly(c.String("name")))
	}
	if tags := c.StringSlice("tag"); len(tags) > 0 {
		q["tag"] = tags
	}
	for _, kv := range c.StringSlice("property") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef(c, "--property %q is not of the form NAME=VALUE", kv)
		}
		if err := filterable(c, k); err != nil {
			return nil, err
		}
		if q.Has(k) {
			return nil, usagef(c, "--property %s is given twice", k)
		}
		q.Set(k, v)
	}
	if c.Bool("hidden") {
		q.Set("os_hidden", "true")
	}
	if !c.Bool("all") {
		return []url.Values{q}, nil
	}
	if !q.Has("visibility") {
		q.Set("visibility", "all")
	}
	hidden := url.Values{"os_hidden": {"true"}}
	for k, v := range q {
		hidden[k] = v
	}
	return []url.Values{q, hidden}, nil
}
