package ctl

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/catalog/fields"
)

func TestInListsAreSplitAtCommasOutsideQuotes(t *testing.T) {
	for value, want := range map[string][]string{
		"a":                {"a"},
		"a,b":              {"a,b"},
		"in:a,b":           {"a", "b"},
		`in:"a,b",c`:       {"a,b", "c"},
		`in:"say \"x\"",c`: {`say "x"`, "c"},
		"in:":              {""},
		"in:a,":            {"a", ""},
		`in:"a`:            nil,
		`in:"a"b`:          nil,
		`in:a"b"`:          nil,
		`in:máy,镜像`:        {"máy", "镜像"},
		`in:"\`:            nil,
	} {
		got, err := oneOf(value)
		if want == nil && (err == nil || explain(err).status != 400) || want != nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q %v, want %q", value, got, err, want)
		}
	}
}

// Each parameter means one thing: what filters by a field, or means something else to a
// list, is no custom property.
func TestParametersAreFiltersOrProperties(t *testing.T) {
	value := map[string]string{"limit": "5", "sort": "name:asc", "sort_key": "name", "sort_dir": "asc", "member_status": "all", "visibility": "private",
		"created_at": "gt:2020-01-01", "updated_at": "lt:2020-01-01", "protected": "True", "os_hidden": "false"}
	who := Identity{Project: "p", Roles: []string{"member"}}
	blank, err := listQuery(nil, who)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(fields.Filters(), fields.ListParameters) {
		if name == "changes-since" {
			continue // refused
		}
		v := value[name]
		if v == "" {
			v = "7"
		}
		params := []param{{name, v}}
		if name == "sort_dir" {
			params = append(params, param{"sort_key", "name"})
		}
		q, err := listQuery(params, who)
		if err != nil || q.Properties != nil {
			t.Errorf("%s=%s: %v, properties %v", name, v, err, q.Properties)
		}
		without := slices.Contains([]string{"deleted", "member_status", "os_hidden"}, name) // of effect
		if reflect.DeepEqual(q, blank) != without {
			t.Errorf("%s=%s changes the query: %v", name, v, !without)
		}
	}
	for _, name := range []string{"os_distro", "self", "stores", "node", "size_mean", "name_min", "os_glance_disk_error"} {
		if q, err := listQuery([]param{{name, "x"}}, who); err != nil || q.Properties[name] != "x" {
			t.Errorf("%s is no property: %v %v", name, q.Properties, err)
		}
	}
}

// Filters of one number are all asked for, in any order.
func TestFiltersOfNumbers(t *testing.T) {
	seven := int64(7)
	for name, want := range map[string]catalog.Query{
		"size": {Size: fields.Range{Is: &seven}}, "size_min": {Size: fields.Range{Min: &seven}}, "virtual_size_max": {VirtualSize: fields.Range{Max: &seven}},
		"min_ram": {MinRAM: fields.Range{Is: &seven}}, "min_disk_min": {MinDisk: fields.Range{Min: &seven}},
	} {
		q, err := listQuery([]param{{name, "7"}}, Identity{})
		if err != nil || !reflect.DeepEqual([]any{q.Size, q.VirtualSize, q.MinRAM, q.MinDisk}, []any{want.Size, want.VirtualSize, want.MinRAM, want.MinDisk}) {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
		if _, err := listQuery([]param{{name, "many"}}, Identity{}); err == nil || explain(err).status != 400 {
			t.Errorf("%s=many: %v", name, err)
		}
	}
	q, err := listQuery([]param{{"size_min", "7"}, {"size", "8"}}, Identity{})
	if err != nil || *q.Size.Is != 8 || *q.Size.Min != 7 {
		t.Errorf("%+v, %v", q.Size, err)
	}
}

// A time shown in whole seconds and sent back must select the image that it was
// shown for, whatever its fraction.
func TestTimesCompareAsTheyAreShown(t *testing.T) {
	stored := time.Date(2026, 11, 21, 2, 10, 57, 123456000, time.UTC)
	before, same, after := "2026-11-21T02:10:56Z", "2026-11-21T02:10:57Z", "2026-11-21T02:10:58Z"
	for _, c := range []struct {
		value string
		want  bool
	}{
		{same, true}, {"eq:" + same, true}, {before, false}, {after, false},
		{"gt:" + same, false}, {"gte:" + same, true}, {"lt:" + same, false}, {"lte:" + same, true},
		{"gt:" + before, true}, {"lt:" + after, true}, {"gte:" + after, false}, {"lte:" + before, false},
		{"gte:2026-11-21T04:10:57+02:00", true}, {"lt:2026-11-21", false}, {"neq:" + before, true},
		{"gt:2026-11-21T02:10:56.9Z", true}, {"lt:2026-11-21T02:10:57.9Z", true},
	} {
		all, err := comparisons(param{"created_at", c.value})
		if err != nil {
			t.Errorf("%s: %v", c.value, err)
			continue
		}
		got := true
		for _, k := range all {
			d := stored.Compare(k.Time)
			got = got && map[string]bool{"eq": d == 0, "neq": d != 0, "gt": d > 0, "gte": d >= 0, "lt": d < 0, "lte": d <= 0}[k.Op]
		}
		if got != c.want {
			t.Errorf("%s selects %v, want %v (%v)", c.value, got, c.want, all)
		}
	}
}

func TestSortingInBothSpellings(t *testing.T) {
	key := func(k string, desc bool) catalog.SortKey { return catalog.SortKey{Key: k, Desc: desc} }
	for _, c := range []struct {
		o    sorting
		want []catalog.SortKey // nil: refused
	}{
		{sorting{}, []catalog.SortKey{key("created_at", true), key("id", true)}},
		{sorting{sort: []string{"name:asc,size"}}, []catalog.SortKey{key("name", false), key("size", true), key("created_at", true), key("id", true)}},
		{sorting{oldKeys: []string{"size"}, oldDirs: []string{"asc"}}, []catalog.SortKey{key("size", false), key("created_at", false), key("id", false)}},
		{sorting{oldDirs: []string{"asc"}}, []catalog.SortKey{key("created_at", false), key("id", false)}},
		{sorting{oldKeys: []string{"size", "name"}, oldDirs: []string{"asc", "desc"}}, []catalog.SortKey{key("size", false), key("name", true), key("created_at", true), key("id", true)}},
		{sorting{oldKeys: []string{"id"}}, []catalog.SortKey{key("id", true), key("created_at", true)}},
		{sorting{oldKeys: []string{"size", "name", "id"}, oldDirs: []string{"asc", "desc"}}, nil},
		{sorting{sort: []string{"name"}, oldDirs: []string{"asc"}}, nil},
		{sorting{sort: []string{"name:up"}}, nil},
		{sorting{sort: []string{""}}, nil},
		{sorting{oldKeys: []string{"owner"}}, nil},
	} {
		got, err := c.o.keys()
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%+v: %v %v, want %v", c.o, got, err, c.want)
		}
	}
}

func FuzzListQuery(f *testing.F) {
	for _, q := range []string{"name=in:%22a,b%22,c&limit=2", "created_at=gt:2020-01-01T00:00:00Z", "sort=name:asc,size", "tag=a&tag=b", "%zz", "a=%ff", "limit=-1", "name=in:\"\\"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		params, err := readParams(raw)
		if err != nil {
			return
		}
		q, err := listQuery(params, Identity{Project: "p"})
		if err != nil {
			if explain(err).status != 400 {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		if q.Limit < 0 || q.Limit > maxLimit {
			t.Errorf("%q: limit %d", raw, q.Limit)
		}
		// The link must lead to the same list.
		link := listLink(params, "")
		again, err := readParams(link[min(len("/v2/images?"), len(link)):])
		if err != nil || listLink(again, "") != link {
			t.Errorf("%q: the link %q reads as %v %v", raw, link, again, err)
		}
	})
}
