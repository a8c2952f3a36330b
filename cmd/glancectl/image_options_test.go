package main

import (
	"slices"
	"strings"
	"testing"

	"glanced/catalog/fields"
)

// What somebody may change has an option, and nothing else has.
func TestEachFieldThatCanBeChangedHasAnOption(t *testing.T) {
	for _, f := range fields.All() {
		has := slices.ContainsFunc(usages, func(u struct{ field, usage string }) bool { return u.field == f.Name })
		if want := f.Edited() && f.Base(); has != want {
			t.Errorf("%s has an option: %v, want %v", f.Name, has, want)
		}
	}
}

func TestPropertiesAreToldFromFields(t *testing.T) {
	g := newServer(t)
	g.add("small", []byte("x"), map[string]any{"min_ram": 64})
	g.add("large", []byte("xyz"), nil)
	for args, want := range map[string]string{
		"--property size=3":                           "large",
		"--property size_max=1":                       "small",
		"--property min_ram_min=1":                    "small",
		"--property virtual_size=3":                   "large",
		"--property os_hash_algo=sha512":              "large small",
		"--property os_hash_algo=md5":                 "",
		"--property checksum=none":                    "",
		"--property size_min=2 --property size_max=9": "large",
	} {
		out := g.do(append([]string{"image", "list", "-f", "value", "-c", "name"}, strings.Fields(args)...)...).ok()
		if got := strings.Join(strings.Fields(out), " "); got != want {
			t.Errorf("list %s: %q, want %q", args, got, want)
		}
	}
	for name, says := range map[string]string{
		"name": "use --name", "os_hidden": "use --hidden", "tag": "use --tag", "disk_format": "use --disk-format",
		"self": "no property", "marker": "no property", "sort_key": "no property", "deleted": "no property",
	} {
		g.do("image", "list", "--property", name+"=x").fails(exitUsage, says)
	}
	for name, says := range map[string]string{
		"tags": "use --tag", "min_ram": "use --min-ram", "id": "use --id", "size": "only the server sets",
		"os_glance_disk_error": "only the server sets", "os_glance_x": "only the server sets", "locations": "only the server sets",
	} {
		g.do("image", "create", "--property", name+"=x").fails(exitUsage, says)
	}
}
