package fields_test

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"glanced/catalog/fields"
	"glanced/catalog/records"
)

// Each part of a record is one row's, so that none is forgotten at a door or in a
// database.
func TestEveryPartOfARecordIsARow(t *testing.T) {
	var img records.Image
	parts := map[any]string{} // by where they are
	for v, i := reflect.ValueOf(&img).Elem(), 0; i < v.NumField(); i++ {
		parts[v.Field(i).Addr().Interface()] = v.Type().Field(i).Name
	}
	for _, f := range fields.Every() {
		at := f.At(&img)
		if at == nil {
			continue
		}
		if _, there := parts[at]; !there {
			t.Errorf("%s is at no part of the record, or at another row's", f.Name)
		}
		delete(parts, at)
	}
	for _, name := range parts {
		t.Errorf("records.Image.%s has no row: decide who writes it, and where it is shown, kept, filtered and sorted", name)
	}
}

// The same for what a query asks of fields. What it asks beside them is here.
func TestEveryFilterOfAQueryIsARows(t *testing.T) {
	others := []string{"Scope", "Properties", "Parent", "Holding", "Unhashed", "Sort", "Marker", "AfterID", "Brief", "Limit"}
	var q records.Query
	parts := map[any]string{}
	for v, i := reflect.ValueOf(&q).Elem(), 0; i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; !slices.Contains(others, name) {
			parts[v.Field(i).Addr().Interface()] = name
		}
	}
	for _, f := range fields.Every() {
		where := f.Condition(&q)
		if (where != nil) != (f.Filter != fields.Unfiltered) {
			t.Errorf("%s: its filter is %d, and its condition is %T", f.Name, f.Filter, where)
		}
		if where == nil {
			continue
		}
		if _, there := parts[where]; !there {
			t.Errorf("the condition of %s is none of the query's, or another row's", f.Name)
		}
		delete(parts, where)
		want := map[fields.Filter][]string{
			fields.Exact: {"*[]string"}, fields.OneOf: {"*[]string", "*[]records.Status"}, fields.AllOf: {"*[]string"}, fields.Truth: {"**bool"},
			fields.Numbers: {"*records.Range"}, fields.Times: {"*[]records.Compare"}, fields.Visible: {"**records.Scope"},
		}[f.Filter]
		if got := fmt.Sprintf("%T", where); !slices.Contains(want, got) {
			t.Errorf("the filter of %s is %d, and its condition is a %s", f.Name, f.Filter, got)
		}
		if (f.Filter == fields.AllOf) == (len(f.Storage.Columns) == 1) {
			t.Errorf("%s is filtered by, and has the columns %v", f.Name, f.Storage.Columns)
		}
	}
	for _, name := range parts {
		t.Errorf("no row filters by records.Query.%s", name)
	}
}

func TestEveryRowIsDecided(t *testing.T) {
	names, columns, xattrs, ranks := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[int]bool{}
	once := func(f *fields.Field, what string, seen bool) {
		if seen {
			t.Errorf("%s: %s is another row's too", f.Name, what)
		}
	}
	for _, f := range fields.Every() {
		if f.Name == "" || f.Listing == 0 || f.Kind == 0 || f.Writer == 0 || f.Showing == 0 || f.Filter == 0 || f.Sort == 0 || f.Xattr == nil {
			t.Errorf("%q is not decided: %+v", f.Name, *f)
		}
		if kept := []bool{len(f.Storage.Columns) > 0, f.Storage.Table != "", f.Storage.Made}; len(slices.DeleteFunc(kept, func(b bool) bool { return !b })) != 1 {
			t.Errorf("%s: where it is kept is not decided: %+v", f.Name, f.Storage)
		}
		if (f.Listing == fields.Base || f.Listing == fields.Property) != (f.Description != "") {
			t.Errorf("%s: its description is %q", f.Name, f.Description)
		}
		if f.Listing == fields.Internal && f.Showing != fields.Never || f.Showing == fields.Present && !f.Null && f.Listing != fields.Property {
			t.Errorf("%s: it is shown at times, and is never null", f.Name)
		}
		once(f, "its name", names[f.Name])
		names[f.Name] = true
		for _, c := range f.Storage.Columns {
			once(f, "column "+c, columns[c])
			columns[c] = true
		}
		for _, x := range f.Xattr {
			once(f, "attribute "+x, xattrs[x])
			xattrs[x] = true
		}
		if f.Sort != fields.Unsorted {
			once(f, "its place among the sort keys", ranks[f.Sort])
			ranks[f.Sort] = true
		}
		writable(t, f)
	}
}

// Databases that are there already keep each field in the column of its name, less the
// API's prefixes: two columns that trade places would read as each other.
func TestColumnsAreCalledAsTheirFields(t *testing.T) {
	odd := map[string][]string{"os_glance_backing_image": {"parent_id", "parent_hash"}}
	for _, f := range fields.Stored() {
		want := odd[f.Name]
		if want == nil {
			want = []string{strings.TrimPrefix(strings.TrimPrefix(f.Name, fields.ReservedPrefix), "os_")}
		}
		if !slices.Equal(f.Storage.Columns, want) {
			t.Errorf("%s is kept in %v, want %v", f.Name, f.Storage.Columns, want)
		}
	}
}

// writable checks that what users write has bounds, and is of a type that is checked.
func writable(t *testing.T, f *fields.Field) {
	if !f.Writable() || !f.Base() {
		return
	}
	bounded := map[fields.Kind]bool{
		fields.Text: f.Words != nil || f.Pattern != "" || f.MaxLength > 0, fields.Integer: f.Max > 0,
		fields.Boolean: true, fields.List: f.MaxItems > 0 && f.MaxLength > 0,
	}
	if !bounded[f.Kind] {
		t.Errorf("%s is written by users, and nothing bounds it", f.Name)
	}
}

// A row's type is that of what it stands for.
func TestValuesAreOfTheirKind(t *testing.T) {
	var img records.Image
	for _, f := range fields.Every() {
		at := fmt.Sprintf("%T", f.At(&img))
		want := map[fields.Kind][]string{
			fields.Text: {"*string", "**string", "*records.Status"}, fields.Integer: {"*int64", "**int64"}, fields.Boolean: {"*bool"},
			fields.Time: {"*time.Time"}, fields.List: {"*[]string"}, fields.Opaque: {"*[]records.Location", "*[]records.Claim", "*map[string]string"},
		}[f.Kind]
		made := f.Storage.Made || f.Listing == fields.Property || slices.Contains([]string{"**records.Parent", "*[]records.Snapshot"}, at)
		if !made && !slices.Contains(want, at) {
			t.Errorf("%s is a %s in the record, and of kind %d", f.Name, at, f.Kind)
		}
		if null := at == "**string" || at == "**int64" || at == "**records.Parent"; null != f.Storage.Null || null && !f.Null {
			t.Errorf("%s is a %s in the record; null: %v, its column may be NULL: %v", f.Name, at, f.Null, f.Storage.Null)
		}
		if v := f.Of(&img); !v.Null && v.Kind != f.Kind || v.Null && !f.Null && f.Kind != fields.Opaque && f.Listing != fields.Property && f.Showing != fields.Never {
			t.Errorf("%s is %+v", f.Name, v)
		}
	}
}

// What is set reads back, and is copied whole.
func TestSetAndCopy(t *testing.T) {
	for _, f := range fields.All() {
		if !f.Writable() || !f.Base() {
			continue
		}
		values := []fields.Value{{Kind: f.Kind, Text: "x", Int: 7, Bool: true, List: []string{"x"}}}
		if f.Null {
			values = append(values, fields.Value{Kind: f.Kind, Null: true})
		}
		for _, v := range values {
			img, to := records.Image{Properties: map[string]string{"a": "b"}}, records.Image{}
			f.Set(&img, v)
			got := f.Of(&img)
			if got.Null != v.Null || !v.Null && fmt.Sprint(got.Any()) != fmt.Sprint(v.Any()) {
				t.Errorf("%s was set to %v and is %v", f.Name, v, got)
			}
			f.Copy(&to, &img)
			if !f.Of(&to).Equal(got) {
				t.Errorf("%s was copied as %v, want %v", f.Name, f.Of(&to), got)
			}
		}
	}
	var to records.Image
	from := records.Image{Properties: map[string]string{"a": "b"}}
	for _, f := range fields.Every() {
		if f.Edited() && f.Listing != fields.Property {
			f.Copy(&to, &from)
		}
	}
	if to.Properties["a"] != "b" {
		t.Error("the custom properties are not copied")
	}
}

func TestTheSortKeysAreGlances(t *testing.T) {
	// glance/api/v2/images.py, RequestDeserializer._available_sort_keys, in its order.
	want := []string{"name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"}
	if got := fields.SortKeys(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestParametersOfAList(t *testing.T) {
	want := []string{"checksum", "container_format", "created_at", "disk_format", "id", "min_disk", "min_disk_max", "min_disk_min",
		"min_ram", "min_ram_max", "min_ram_min", "name", "os_hash_algo", "os_hash_value", "os_hidden", "owner", "protected",
		"size", "size_max", "size_min", "status", "tag", "updated_at", "virtual_size", "virtual_size_max", "virtual_size_min", "visibility"}
	if got := fields.Filters(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if p, ok := fields.Filtered("size_max"); !ok || p.Field.Name != "size" || p.Bound != fields.AtMost {
		t.Errorf("size_max filters by %+v", p)
	}
	for _, name := range fields.ListParameters {
		if _, ok := fields.Filtered(name); ok {
			t.Errorf("%s means two things", name)
		}
	}
}

func TestNamesThatAreKept(t *testing.T) {
	for name, want := range map[string][2]bool{ // base, reserved
		"name": {true, false}, "stores": {true, false}, "locations": {true, true}, "os_glance_disk_error": {true, true}, "os_glance_x": {false, true},
		"deleted": {false, true}, "location": {false, true}, "os_distro": {false, false}, "kernel_id": {false, false},
		"node": {false, false}, "properties": {false, false}, "tag": {false, false}, "disk_error": {false, false},
	} {
		if got := [2]bool{fields.IsBase(name), fields.Reserved(name)}; got != want {
			t.Errorf("%s: base and reserved are %v, want %v", name, got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	f, _ := fields.Find("id")
	pattern := regexp.MustCompile(f.Pattern)
	const id = "6f0c4bd2-5f3a-4EA7-b2ab-0d1f0f8f5a01"
	for _, s := range []string{id, "", "x", "{" + id + "}", "urn:uuid:" + id, id + "\n", id + "0", "6f0c4bd25f3a4ea7b2ab0d1f0f8f5a01",
		"6f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a0g", "6f0c4bd2-5f3a-4ea7-b2ab0-d1f0f8f5a01", "６f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a"} {
		if got := fields.IsID(s); got != pattern.MatchString(s) || got != f.Matches(s) || got != (s == id) {
			t.Errorf("%q is an id: %v", s, got)
		}
	}
}

func TestWhatTheAPIMakesOfOthers(t *testing.T) {
	name, parent := "n", records.Parent{ID: "p"}
	img := records.Image{ID: "a/b", Name: &name, Status: records.Active, CreatedAt: time.Date(2026, 12, 1, 7, 0, 5, 999, time.FixedZone("", 3600)),
		Parent: &parent, Snapshots: []records.Snapshot{{Name: "<1>"}, {Name: "ảnh"}}, DiskError: "why",
		Locations: []records.Location{{Store: "fast", URL: "file:///secret"}, {Store: "slow"}}, Properties: map[string]string{"os_distro": "debian"}}
	for name, want := range map[string]any{
		"id": "a/b", "name": "n", "status": "active", "owner": nil, "created_at": "2026-12-01T06:00:05Z", "size": nil, "tags": []string{}, "protected": false,
		"self": "/v2/images/a%2Fb", "file": "/v2/images/a%2Fb/file", "schema": "/v2/schemas/image", "stores": "fast,slow", "locations": nil, "direct_url": nil,
		"os_glance_disk_error": "why", "os_glance_backing_image": "p", "os_glance_snapshots": `["\u003c1\u003e","ảnh"]`, "os_distro": "debian", "os_version": nil,
	} {
		f, ok := fields.Find(name)
		if !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		if got := f.Of(&img).Any(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	img.Status = records.Deactivated
	if f, _ := fields.Find("stores"); !f.Of(&img).Null {
		t.Error("the stores of a deactivated image are shown")
	}
}
