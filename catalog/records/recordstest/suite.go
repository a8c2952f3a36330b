// Package recordstest is the contract of package records, and the rules above it, as
// tests for every database to pass.
package recordstest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// Suite runs the contract against one kind of database.
type Suite struct {
	// New opens an empty database, which the suite closes, and says how another process
	// finds it: see Worker.
	New func(t *testing.T) (db records.DB, where string)
}

// Run runs every test of the suite.
func (s Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *rules.Records)
	}{
		{"every field reads back", testFields},
		{"update changes what it is told to, and the time", testUpdate},
		{"an error of the change writes nothing", testUpdateFails},
		{"upload fields change without a trace", testUploadFields},
		{"what is known of a location changes without a trace", testLocationFields},
		{"locations are counted by store", testStores},
		{"ids are used once", testExists},
		{"parallel updates are lost to nobody", testParallelUpdates},
		{"only one of many wins a move", testParallelMoves},
		{"lists filter", testFilters},
		{"lists hold what is in a scope", testScope},
		{"lists page in any order, nulls included", testPaging},
		{"lists are cut by what they take in memory", testPages},
		{"changes are logged in order", testChanges},
		{"user text is data", testHostileText},
		{"parallel creates cannot pass the count quota", testCountQuota},
		{"parallel uploads cannot pass the size quota", testSizeQuota},
		{"a lowered quota does not lock what is there", testLoweredQuota},
		{"usage follows owner and status", testUsage},
		{"a parent must be what it was", testParentMustBeSound},
		{"a parent in use is not deleted", testParentInUse},
		{"of a parent's deletion and a child's activation one wins", testParentRace},
		{"own quotas replace the default", testOwnQuota},
		{"a lease is one holder's", testLeases},
		{"leases are renewed", testLeasesAreRenewed},
		{"an ended context ends the call", testContext},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.with(t, rules.Options{}, c.test)
		})
	}
	for name, test := range map[string]func(*testing.T, *rules.Records, string){
		"two processes share quotas":  testProcessesShareQuotas,
		"two processes share parents": testProcessesShareParents,
		"two processes share leases":  testProcessesShareLeases,
		"two processes share the log": testProcessesShareTheLog,
	} {
		t.Run(name, func(t *testing.T) { s.shared(t, rules.Options{}, test) })
	}
	t.Run("the log of changes is bounded", func(t *testing.T) {
		s.with(t, rules.Options{ChangeLog: 100}, testTrim)
	})
	t.Run("the default quota holds for every project", func(t *testing.T) {
		s.with(t, rules.Options{DefaultQuota: records.Quota{ImageCountTotal: 1}}, testDefaultQuota)
	})
}

// with runs test over an empty database.
func (s Suite) with(t *testing.T, o rules.Options, test func(*testing.T, *rules.Records)) {
	s.shared(t, o, func(t *testing.T, r *rules.Records, _ string) { test(t, r) })
}

// shared is with, for a test that has other processes use the database too.
func (s Suite) shared(t *testing.T, o rules.Options, test func(*testing.T, *rules.Records, string)) {
	db, where := s.New(t)
	test(t, rules.New(db, o), where)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func ptr[T any](v T) *T { return &v }

// at is a time in microseconds, as all stores keep them.
func at(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 123_456_000).UTC() }

// fill sets what a record cannot be without.
func fill(img records.Image) records.Image {
	if img.ID == "" {
		img.ID = uuid.NewString()
	}
	if img.Status == "" {
		img.Status = records.Queued
	}
	if img.Visibility == "" {
		img.Visibility = "private"
	}
	return img
}

func create(t testing.TB, s *rules.Records, img records.Image) records.Image {
	t.Helper()
	got, err := s.Create(t.Context(), fill(img))
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return got
}

func get(t testing.TB, s *rules.Records, id string) records.Image {
	t.Helper()
	img, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	return img
}

func update(t testing.TB, s *rules.Records, id string, change func(*records.Image)) records.Image {
	t.Helper()
	img, err := s.Update(t.Context(), id, func(i *records.Image) error { change(i); return nil })
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	return img
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func wantSame(t testing.TB, got, want records.Image) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func full() records.Image {
	return records.Image{
		ID: uuid.NewString(), Name: ptr("Ảnh đĩa 映像 💿"), Status: records.Active,
		DiskFormat: ptr("qcow2"), ContainerFormat: ptr("bare"), Visibility: "shared", Owner: "p",
		Protected: true, Hidden: true, MinDisk: 1, MinRAM: 2, Size: ptr(int64(1 << 40)),
		VirtualSize: ptr(int64(1 << 41)), Allocated: ptr(int64(0)), Checksum: ptr("c"), HashAlgo: ptr("sha512"),
		HashValue: ptr("h"), DiskError: "why", CreatedAt: at(1), UpdatedAt: at(2),
		Properties: map[string]string{"os_distro": "debian", "empty": ""}, Tags: []string{"a", "b"},
		Locations: []records.Location{{Store: "s2", URL: "u2", Size: -1}, {Store: "s1", URL: "u1", Size: 1 << 40, Version: "1:ab", Metadata: map[string]string{"k": "v"}}},
		Snapshots: []records.Snapshot{{Name: "before", ID: "1", VirtualSize: 1 << 40}, {Name: "2", ID: "2"}},
		Node:      "n", Reserved: 5, Claims: []records.Claim{{Store: "s", Claim: "c?ả&="}, {Store: "r", Claim: "d"}},
	}
}

func testFields(t *testing.T, s *rules.Records) {
	for _, img := range []records.Image{full(), {ID: uuid.NewString(), Status: records.Queued, Visibility: "private",
		CreatedAt: at(1), UpdatedAt: at(1), Properties: map[string]string{}}} {
		wantSame(t, create(t, s, img), img)
		wantSame(t, get(t, s, img.ID), img)
		list, err := s.List(t.Context(), records.Query{Scope: records.Everything, ID: []string{img.ID}})
		if err != nil || len(list) != 1 {
			t.Fatalf("list: %v, %v", list, err)
		}
		wantSame(t, list[0], img)
	}
	// What a caller leaves to the store, and what it may give in any order.
	got := create(t, s, records.Image{Tags: []string{"b", "a", "b"}, CreatedAt: time.Time{}})
	if got.CreatedAt.IsZero() || got.UpdatedAt.IsZero() || !slices.Equal(got.Tags, []string{"a", "b"}) {
		t.Errorf("got %+v", got)
	}
	wantSame(t, get(t, s, got.ID), got)
	_, err := s.Get(t.Context(), uuid.NewString())
	wantErr(t, err, records.ErrNotFound)
}

func testUpdate(t *testing.T, s *rules.Records) {
	img := create(t, s, full())
	want := img.Clone()
	want.Name, want.Size, want.Status = nil, ptr(int64(7)), records.Deactivated
	want.Properties = map[string]string{"os_distro": "ubuntu", "new": "1"}
	want.Tags = []string{"c"}
	want.Locations = []records.Location{{Store: "s1", URL: "u1"}}
	got := update(t, s, img.ID, func(i *records.Image) { *i = want.Clone(); i.ID = "another"; i.Tags = []string{"c", "c"} })
	if !got.UpdatedAt.After(img.UpdatedAt) || got.UpdatedAt.Nanosecond()%1000 != 0 {
		t.Errorf("updated at %v, before at %v", got.UpdatedAt, img.UpdatedAt)
	}
	want.UpdatedAt = got.UpdatedAt
	wantSame(t, got, want)
	wantSame(t, get(t, s, img.ID), want)
	// What change was given is a copy.
	update(t, s, img.ID, func(i *records.Image) { i.Properties["x"] = "y"; delete(i.Properties, "x") })
	wantSame(t, get(t, s, img.ID), want)
	_, err := s.Update(t.Context(), uuid.NewString(), func(*records.Image) error { return nil })
	wantErr(t, err, records.ErrNotFound)
}

func testUpdateFails(t *testing.T, s *rules.Records) {
	img := create(t, s, full())
	own := errors.New("no")
	_, err := s.Update(t.Context(), img.ID, func(i *records.Image) error { i.Name = nil; i.Tags = nil; return own })
	if err != own {
		t.Errorf("error %v, want the change's own as it is", err)
	}
	wantSame(t, get(t, s, img.ID), img)
}

func testUploadFields(t *testing.T, s *rules.Records) {
	img := create(t, s, full())
	before, _ := s.LastSeq(t.Context())
	want := img.Clone()
	want.Node, want.Reserved, want.Claims = "m", 6, []records.Claim{{Store: "x", Claim: "y"}}
	update(t, s, img.ID, func(i *records.Image) { *i = want.Clone() })
	wantSame(t, get(t, s, img.ID), want)
	update(t, s, img.ID, func(*records.Image) {})
	wantSame(t, get(t, s, img.ID), want)
	if after, _ := s.LastSeq(t.Context()); after != before {
		t.Errorf("the log went from %d to %d", before, after)
	}
}

func testLocationFields(t *testing.T, s *rules.Records) {
	img := create(t, s, full())
	before, _ := s.LastSeq(t.Context())
	want := img.Clone()
	want.Locations[0].Size, want.Locations[0].Version = 1<<40, "1:cd"
	update(t, s, img.ID, func(i *records.Image) { *i = want.Clone() })
	wantSame(t, get(t, s, img.ID), want)
	if after, _ := s.LastSeq(t.Context()); after != before {
		t.Errorf("the log went from %d to %d", before, after)
	}
	// Another place is another matter.
	update(t, s, img.ID, func(i *records.Image) { i.Locations[0].URL = "elsewhere" })
	if after, _ := s.LastSeq(t.Context()); after != before+1 {
		t.Errorf("the log went from %d to %d", before, after)
	}
}

func testStores(t *testing.T, s *rules.Records) {
	create(t, s, full())
	create(t, s, records.Image{Locations: []records.Location{{Store: "s1", URL: "u"}}})
	create(t, s, records.Image{Status: records.Deleted, Locations: []records.Location{{Store: "s3", URL: "u"}}})
	create(t, s, records.Image{})
	got, err := s.Stores(t.Context())
	if want := map[string]int64{"s1": 2, "s2": 1, "s3": 1}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("locations by store %v, %v; want %v", got, err, want)
	}
}

func testExists(t *testing.T, s *rules.Records) {
	img := create(t, s, full())
	_, err := s.Create(t.Context(), img)
	wantErr(t, err, records.ErrExists)
	update(t, s, img.ID, func(i *records.Image) { i.Status = records.Deleted })
	_, err = s.Create(t.Context(), img)
	wantErr(t, err, records.ErrExists)
	if got := get(t, s, img.ID); got.Status != records.Deleted {
		t.Errorf("the deleted image is %s", got.Status)
	}
}

func testChanges(t *testing.T, s *rules.Records) {
	start, err := s.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := create(t, s, records.Image{})
	b := create(t, s, records.Image{})
	update(t, s, a.ID, func(i *records.Image) { i.Status = records.Saving })
	s.Update(t.Context(), a.ID, func(i *records.Image) error { i.Name = ptr("x"); return errors.New("no") })
	s.Create(t.Context(), a)
	update(t, s, b.ID, func(i *records.Image) { i.Status = records.Deleted })
	update(t, s, b.ID, func(i *records.Image) { i.Locations = []records.Location{{Store: "s", URL: "u"}} })
	want := []records.Change{
		{Seq: start + 1, Kind: records.Created, ID: a.ID, Status: records.Queued},
		{Seq: start + 2, Kind: records.Created, ID: b.ID, Status: records.Queued},
		{Seq: start + 3, Kind: records.Updated, ID: a.ID, Status: records.Saving},
		{Seq: start + 4, Kind: records.Removed, ID: b.ID, Status: records.Deleted},
		{Seq: start + 5, Kind: records.Updated, ID: b.ID, Status: records.Deleted},
	}
	got, err := s.Changes(t.Context(), start, 100)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("changes %v, %v; want %v", got, err, want)
	}
	got, err = s.Changes(t.Context(), start+2, 2)
	if err != nil || !slices.Equal(got, want[2:4]) {
		t.Errorf("two changes after the second: %v, %v", got, err)
	}
	if last, err := s.LastSeq(t.Context()); err != nil || last != start+5 {
		t.Errorf("last %d, %v", last, err)
	}
	if got, err := s.Changes(t.Context(), start+5, 10); err != nil || len(got) != 0 {
		t.Errorf("changes after the last: %v, %v", got, err)
	}
}

func testTrim(t *testing.T, s *rules.Records) {
	img := create(t, s, records.Image{})
	for i := range 1000 {
		update(t, s, img.ID, func(i2 *records.Image) { i2.MinRAM = int64(i + 1) })
	}
	_, err := s.Changes(t.Context(), 0, 10)
	wantErr(t, err, records.ErrTrimmed)
	last, err := s.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Changes(t.Context(), last-100, 1000)
	if err != nil || len(got) != 100 {
		t.Errorf("%d of the last 100 changes, %v", len(got), err)
	}
}

func testHostileText(t *testing.T, s *rules.Records) {
	for _, text := range []string{`'; DROP TABLE images; --`, `" OR 1=1`, `%`, `_`, `\`, `["a"]`, `{"a":1}`, "a\nb", "😀", "máy ảo", "镜像"} {
		img := create(t, s, records.Image{Name: &text, Owner: text, Properties: map[string]string{text: text}, Tags: []string{text}})
		wantSame(t, get(t, s, img.ID), img)
		q := records.Query{Scope: records.Scope{Owners: []string{text}, Visibility: []string{text}}, Name: []string{text, "other"}, Owner: []string{text}, Tags: []string{text}, Properties: map[string]string{text: text}}
		list, err := s.List(t.Context(), q)
		if err != nil || len(list) != 1 || list[0].ID != img.ID {
			t.Errorf("list by %q: %d images, %v", text, len(list), err)
		}
		_, err = s.List(t.Context(), records.Query{Scope: records.Everything, Marker: text})
		wantErr(t, err, records.ErrMarker)
		if _, err := s.List(t.Context(), records.Query{Sort: []records.SortKey{{Key: text}}}); err == nil {
			t.Errorf("sort key %q was taken", text)
		}
		if _, err := s.List(t.Context(), records.Query{CreatedAt: []records.Compare{{Op: text}}}); err == nil {
			t.Errorf("comparison %q was taken", text)
		}
	}
}

func testContext(t *testing.T, s *rules.Records) {
	img := create(t, s, full())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Update(ctx, img.ID, func(i *records.Image) error { i.Name = nil; return nil })
	wantErr(t, err, context.Canceled)
	_, err = s.Get(ctx, img.ID)
	wantErr(t, err, context.Canceled)
	wantSame(t, get(t, s, img.ID), img)
}

// describe shows images by their names, for messages.
func describe(images []records.Image) string {
	var names []string
	for _, i := range images {
		if i.Name == nil {
			names = append(names, "null")
		} else {
			names = append(names, *i.Name)
		}
	}
	return fmt.Sprintf("%d: %s", len(images), strings.Join(names, " "))
}
