package recordstest

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

func testFilters(t *testing.T, s *rules.Records) {
	for i, img := range []records.Image{
		{Name: ptr("a"), Status: records.Active, DiskFormat: ptr("raw"), ContainerFormat: ptr("bare"), Owner: "p", Size: ptr(int64(10)),
			VirtualSize: ptr(int64(30)), Checksum: ptr("c1"), HashAlgo: ptr("sha256"), HashValue: ptr("h1"), Tags: []string{"x", "y"}, Properties: map[string]string{"os": "linux", "arch": "x86_64"}},
		{Name: ptr("b"), Status: records.Queued, DiskFormat: ptr("qcow2"), ContainerFormat: ptr("ova"), Owner: "q", Protected: true,
			Tags: []string{"x"}, Properties: map[string]string{"os": "linux"}, MinDisk: 5},
		{Name: ptr("c"), Status: records.Active, DiskFormat: ptr("qcow2"), ContainerFormat: ptr("bare"), Owner: "q", Hidden: true, Size: ptr(int64(20)),
			Checksum: ptr("c1"), Properties: map[string]string{"os": "windows", "arch": "x86_64"}, MinRAM: 7,
			Locations: []records.Location{{Store: "s", URL: "u"}, {Store: "s", URL: "v"}}},
		{Name: ptr("d"), Status: records.Deleted, Owner: "p", Tags: []string{"x"}, Claims: []records.Claim{{Store: "s", Claim: "w"}}},
		{Owner: "p"},
	} {
		img.CreatedAt, img.UpdatedAt = at(i), at(10*i)
		create(t, s, img)
	}
	for _, c := range []struct {
		name string
		q    records.Query
		want string // names, newest first
	}{
		{"all", records.Query{}, "4: null c b a"},
		{"one name", records.Query{Name: []string{"a"}}, "1: a"},
		{"names", records.Query{Name: []string{"a", "c", "nobody"}}, "2: c a"},
		{"no such id", records.Query{ID: []string{"nobody"}}, "0: "},
		{"status", records.Query{Status: []records.Status{records.Active}}, "2: c a"},
		{"statuses", records.Query{Status: []records.Status{records.Active, records.Deleted}}, "3: d c a"},
		{"holding", records.Query{Holding: true}, "1: c"},
		{"deleted, holding", records.Query{Holding: true, Status: []records.Status{records.Deleted}}, "1: d"},
		{"disk format", records.Query{DiskFormat: []string{"qcow2"}}, "2: c b"},
		{"container formats", records.Query{ContainerFormat: []string{"ova", "ovf"}}, "1: b"},
		{"owner", records.Query{Owner: []string{"q"}}, "2: c b"},
		{"protected", records.Query{Protected: ptr(true)}, "1: b"},
		{"not protected", records.Query{Protected: ptr(false)}, "3: null c a"},
		{"hidden", records.Query{Hidden: ptr(true)}, "1: c"},
		{"not hidden", records.Query{Hidden: ptr(false)}, "3: null b a"},
		{"size min", records.Query{Size: records.Range{Min: ptr(int64(11))}}, "1: c"},
		{"size max", records.Query{Size: records.Range{Max: ptr(int64(10))}}, "1: a"},
		{"size", records.Query{Size: records.Range{Is: ptr(int64(10))}}, "1: a"},
		{"size, and too small", records.Query{Size: records.Range{Is: ptr(int64(10)), Min: ptr(int64(11))}}, "0: "},
		{"virtual size", records.Query{VirtualSize: records.Range{Is: ptr(int64(30))}}, "1: a"},
		{"virtual size max", records.Query{VirtualSize: records.Range{Max: ptr(int64(29))}}, "0: "},
		{"min disk at least", records.Query{MinDisk: records.Range{Min: ptr(int64(1))}}, "1: b"},
		{"min ram at most", records.Query{MinRAM: records.Range{Max: ptr(int64(6))}}, "3: null b a"},
		{"no owner", records.Query{Owner: []string{""}}, "0: "},
		{"min disk", records.Query{MinDisk: records.Range{Is: ptr(int64(5))}}, "1: b"},
		{"min ram", records.Query{MinRAM: records.Range{Is: ptr(int64(7))}}, "1: c"},
		{"checksum", records.Query{Checksum: []string{"c1"}}, "2: c a"},
		{"hash algorithm", records.Query{HashAlgo: []string{"sha256"}}, "1: a"},
		{"no checksum", records.Query{Checksum: []string{""}}, "0: "},
		{"hash", records.Query{HashValue: []string{"h1"}}, "1: a"},
		{"no hash", records.Query{Unhashed: true}, "3: null c b"},
		{"tag", records.Query{Tags: []string{"x"}}, "2: b a"},
		{"tags", records.Query{Tags: []string{"x", "y"}}, "1: a"},
		{"property", records.Query{Properties: map[string]string{"os": "linux"}}, "2: b a"},
		{"properties", records.Query{Properties: map[string]string{"os": "linux", "arch": "x86_64"}}, "1: a"},
		{"another value of the property", records.Query{Properties: map[string]string{"os": "x86_64"}}, "0: "},
		{"later", records.Query{CreatedAt: []records.Compare{{Op: "gt", Time: at(2)}}}, "1: null"},
		{"not earlier", records.Query{CreatedAt: []records.Compare{{Op: "gte", Time: at(2)}}}, "2: null c"},
		{"earlier", records.Query{UpdatedAt: []records.Compare{{Op: "lt", Time: at(10)}}}, "1: a"},
		{"not later", records.Query{UpdatedAt: []records.Compare{{Op: "lte", Time: at(10)}}}, "2: b a"},
		{"then", records.Query{CreatedAt: []records.Compare{{Op: "eq", Time: at(1)}}}, "1: b"},
		{"not then", records.Query{CreatedAt: []records.Compare{{Op: "neq", Time: at(1)}}}, "3: null c a"},
		{"between", records.Query{CreatedAt: []records.Compare{{Op: "gt", Time: at(0)}, {Op: "lt", Time: at(4)}}}, "2: c b"},
		{"limit", records.Query{Limit: 2}, "2: null c"},
	} {
		c.q.Scope = records.Everything
		got, err := s.List(t.Context(), c.q)
		if err != nil || describe(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, describe(got), err, c.want)
		}
	}
}

// testScope lists by every pair of scopes of a few, and compares with Contains.
func testScope(t *testing.T, s *rules.Records) {
	owners, visibilities := []string{"me", "you", ""}, []string{"public", "private", "shared", "community"}
	var all []records.Image
	for _, owner := range owners {
		for _, v := range visibilities {
			for _, hidden := range []bool{false, true} {
				for _, status := range []records.Status{records.Queued, records.Active, records.Deactivated} {
					all = append(all, create(t, s, records.Image{Owner: owner, Visibility: v, Hidden: hidden, Status: status, CreatedAt: at(-len(all))}))
				}
			}
		}
	}
	scopes := []records.Scope{{}, records.Everything, {All: true, Owners: []string{"me"}},
		{Owners: []string{"me"}}, {Owners: []string{"me", "you"}}, {Owners: []string{""}}, {Owners: []string{"nobody"}},
		{Visibility: []string{"public"}}, {Visibility: []string{"public", "community"}}, {Visibility: visibilities},
		{Owners: []string{"me"}, Visibility: []string{"public", "community"}}}
	for _, scope := range scopes {
		for _, among := range append(scopes, records.Scope{Owners: []string{"you"}, Visibility: []string{"shared"}}) {
			var want []string
			for _, img := range all {
				if scope.Contains(img) && among.Contains(img) {
					want = append(want, img.ID)
				}
			}
			got, err := s.List(t.Context(), records.Query{Scope: scope, Among: &among})
			if err != nil || !slices.EqualFunc(got, want, func(img records.Image, id string) bool { return img.ID == id }) {
				t.Errorf("%+v, of it %+v: %d images, %v; want %d", scope, among, len(got), err, len(want))
			}
		}
	}
	if got, err := s.List(t.Context(), records.Query{}); err != nil || len(got) != 0 {
		t.Errorf("a query without a scope: %d images, %v", len(got), err)
	}
}

func testPaging(t *testing.T, s *rules.Records) {
	r := rand.New(rand.NewPCG(5, 6))
	var all []records.Image
	for range 60 {
		img := records.Image{Owner: "p", CreatedAt: at(r.IntN(5)), UpdatedAt: at(r.IntN(60)), Status: []records.Status{records.Queued, records.Active}[r.IntN(2)]}
		if r.IntN(3) > 0 {
			img.Name = ptr(fmt.Sprint("n", r.IntN(4)))
		}
		if r.IntN(3) > 0 {
			img.Size = ptr(r.Int64N(3))
		}
		all = append(all, create(t, s, img))
	}
	key := func(v string, desc bool) records.SortKey { return records.SortKey{Key: v, Desc: desc} }
	for _, sort := range [][]records.SortKey{
		nil,
		{key("id", false)},
		{key("created_at", false)},
		{key("created_at", true), key("id", false)},
		{key("name", false)},
		{key("name", true)},
		{key("size", true), key("name", false)},
		{key("size", false), key("name", true), key("id", true)},
		{key("status", true), key("size", true), key("updated_at", false)},
		{key("updated_at", true), key("status", false)},
	} {
		want := slices.Clone(all)
		slices.SortFunc(want, func(a, b records.Image) int { return compare(a, b, sort) })
		for _, limit := range []int{1, 7, 59, 60, 61} {
			q := records.Query{Scope: records.Everything, Sort: sort, Limit: limit}
			var got []string
			for {
				page, err := s.List(t.Context(), q)
				if err != nil {
					t.Fatalf("%v, limit %d: %v", sort, limit, err)
				}
				if len(page) == 0 {
					break
				}
				if len(page) > limit {
					t.Fatalf("%v: a page of %d, limit %d", sort, len(page), limit)
				}
				for _, img := range page {
					got = append(got, img.ID)
				}
				if len(got) > len(all) {
					break
				}
				q.Marker = page[len(page)-1].ID
			}
			if !slices.EqualFunc(got, want, func(id string, img records.Image) bool { return id == img.ID }) {
				t.Errorf("sorted by %v in pages of %d: %d images, or another order", sort, limit, len(got))
			}
		}
	}
	// Its place among the viewer's own images would tell what its fields are; what is
	// only not listed may be one.
	update(t, s, all[0].ID, func(i *records.Image) { i.Visibility, i.Owner = "shared", "other" })
	for _, c := range []struct {
		scope records.Scope
		want  error
	}{
		{records.Scope{Owners: []string{"viewer"}, Visibility: []string{"public"}}, records.ErrMarker},
		{records.Scope{Owners: []string{"viewer"}, Visibility: []string{"shared"}}, nil},
		{records.Scope{Owners: []string{"other"}}, nil},
		{records.Everything, nil},
	} {
		if _, err := s.List(t.Context(), records.Query{Scope: c.scope, Among: &records.Scope{}, Marker: all[0].ID}); !errors.Is(err, c.want) {
			t.Errorf("a marker within %+v: %v, want %v", c.scope, err, c.want)
		}
	}
	update(t, s, all[0].ID, func(i *records.Image) { i.Status = records.Deleted })
	_, err := s.List(t.Context(), records.Query{Scope: records.Everything, Marker: all[0].ID})
	wantErr(t, err, records.ErrMarker)
}

// compare is the order that the contract asks for: nulls before everything, and
// created_at and id, falling, where they are not said.
func compare(a, b records.Image, sort []records.SortKey) int {
	sort = append(slices.Clone(sort), records.SortKey{Key: "created_at", Desc: true}, records.SortKey{Key: "id", Desc: true})
	for _, k := range sort {
		var c int
		switch k.Key {
		case "id":
			c = cmp.Compare(a.ID, b.ID)
		case "name":
			c = compareNull(a.Name, b.Name)
		case "size":
			c = compareNull(a.Size, b.Size)
		case "status":
			c = cmp.Compare(a.Status, b.Status)
		case "created_at":
			c = a.CreatedAt.Compare(b.CreatedAt)
		case "updated_at":
			c = a.UpdatedAt.Compare(b.UpdatedAt)
		}
		if k.Desc {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func compareNull[T cmp.Ordered](a, b *T) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Compare(*a, *b)
}

// testPages cuts lists by what they take in memory, wherever that lies.
func testPages(t *testing.T, s *rules.Records) {
	for i := range 20 {
		create(t, s, records.Image{CreatedAt: at(i), Tags: []string{"tag"}, Properties: map[string]string{"fat": strings.Repeat("x", 1000*i)}})
	}
	snapshots := make([]records.Snapshot, 100)
	for i := range snapshots {
		snapshots[i] = records.Snapshot{Name: fmt.Sprint(i, strings.Repeat("n", 250)), ID: "id"}
	}
	create(t, s, records.Image{CreatedAt: at(20), Snapshots: snapshots})
	all, more, err := s.Page(t.Context(), records.Query{Scope: records.Everything}, math.MaxInt64)
	if err != nil || more || len(all) != 21 {
		t.Fatalf("%d images, more: %v, %v", len(all), more, err)
	}
	for _, most := range []int64{1, 5000, 30000, 100000} {
		for _, limit := range []int{0, 3} {
			var got []records.Image
			q := records.Query{Scope: records.Everything, Limit: limit}
			for more := true; more; {
				var page []records.Image
				if page, more, err = s.Page(t.Context(), q, most); err != nil || len(page) == 0 {
					t.Fatalf("%d images, %v", len(page), err)
				}
				var weight int64
				for i := range page {
					weight += page[i].Bytes()
				}
				if weight > most && len(page) > 1 || limit > 0 && len(page) > limit {
					t.Errorf("a page of %d bytes and %d has %d images, of %d bytes", most, limit, len(page), weight)
				}
				got = append(got, page...)
				q.Marker = page[len(page)-1].ID
			}
			if !reflect.DeepEqual(got, all) {
				t.Errorf("in pages of %d bytes and %d there are %d images, want %d as they are in one list", most, limit, len(got), len(all))
			}
		}
	}
	// A page may be cut as late as it fits: half of all in one half of the bytes, say.
	if page, more, err := s.Page(t.Context(), records.Query{Scope: records.Everything, Limit: 5}, math.MaxInt64); err != nil || !more || len(page) != 5 {
		t.Errorf("the first 5: %d, more: %v, %v", len(page), more, err)
	}
	brief, more, err := s.Page(t.Context(), records.Query{Scope: records.Everything, Brief: true, Sort: []records.SortKey{{Key: "id"}}, AfterID: all[7].ID}, 60000)
	if err != nil || more {
		t.Errorf("more: %v, %v", more, err)
	}
	for _, img := range brief {
		if img.ID <= all[7].ID || len(img.Properties) > 0 || len(img.Tags) > 0 {
			t.Errorf("after %s there is %s, with %d properties", all[7].ID, img.ID, len(img.Properties))
		}
	}
}
