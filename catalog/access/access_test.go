package access_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"

	"glanced/catalog/access"
	"glanced/catalog/records"
	"glanced/catalog/records/sqlite"
	"glanced/catalog/rules"
)

// identities are all kinds of callers, with their project as seen from owner "mine".
var identities = map[string]access.Identity{
	"nobody":                 {},
	"a project without role": {Project: "mine"},
	"another role":           {Project: "mine", Roles: []string{"creator"}},
	"reader":                 {Project: "mine", Roles: []string{"reader"}},
	"member":                 {Project: "mine", Roles: []string{"Member", "reader"}},
	"reader without project": {Roles: []string{"reader"}},
	"administrator":          {Project: "mine", Roles: []string{"ADMIN"}},
	"daemon":                 access.System(),
	"anonymous, public":      access.Anyone(records.Scope{Visibility: []string{"public"}}),
	"anonymous, all":         access.Anyone(records.Everything),
	"reader with a grant":    {Project: "mine", Roles: []string{"reader"}, Granted: records.Scope{Owners: []string{"theirs"}}},
}

// images are one of each owner, visibility, status and hiddenness.
func images() (all []records.Image) {
	for _, owner := range []string{"mine", "theirs", ""} {
		for _, v := range access.Visibilities {
			for _, status := range []records.Status{records.Queued, records.Saving, records.Active, records.Deactivated} {
				for _, hidden := range []bool{false, true} {
					all = append(all, records.Image{ID: uuid.NewString(), Owner: owner, Visibility: v, Status: status, Hidden: hidden})
				}
			}
		}
	}
	return all
}

// What the database lists for an identity is what Check lets it see, image by image.
func TestListsAndChecksFollowOneRule(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := rules.New(db, rules.Options{})
	all := images()
	for i := range all {
		if all[i], err = s.Create(t.Context(), all[i]); err != nil {
			t.Fatal(err)
		}
	}
	for name, who := range identities {
		for _, asked := range append([]string{"", "all"}, access.Visibilities...) {
			list, err := s.List(t.Context(), records.Query{Scope: access.Sees(who), Among: access.Listed(who, asked)})
			if err != nil {
				t.Fatal(err)
			}
			for _, img := range all {
				got := slices.ContainsFunc(list, func(o records.Image) bool { return o.ID == img.ID })
				seen := access.Check(who, access.Show, img) == nil
				want := seen && (asked == "all" || asked == img.Visibility ||
					asked == "" && (img.Visibility != access.Community || img.Owner != "" && img.Owner == who.Project))
				if got != want {
					t.Errorf("%s, visibility %q: %s %s image of %q, hidden %v: listed %v, want %v", name, asked, img.Status, img.Visibility, img.Owner, img.Hidden, got, want)
				}
				if hidden := access.Check(who, access.Download, img); (hidden == nil) != seen {
					t.Errorf("%s: a %s image of %q: shown %v, downloaded: %v", name, img.Visibility, img.Owner, seen, hidden)
				}
			}
		}
	}
}

// The table is written out once more, by what each caller may do with an image.
func TestWhoMay(t *testing.T) {
	read := []access.Verb{access.Show, access.Download}
	audit := append(slices.Clone(read), access.ListMembers)
	change := append(slices.Clone(audit), access.Modify, access.Upload, access.Delete, access.Deactivate, access.Reactivate)
	every := append(slices.Clone(change), access.DownloadDeactivated)
	type of struct{ owner, visibility string }
	mine, public, theirs := of{"mine", "private"}, of{"theirs", "public"}, of{"theirs", "shared"}
	for _, c := range []struct {
		who  string
		img  of
		want []access.Verb
	}{
		{"nobody", public, nil}, {"nobody", of{"", "private"}, nil},
		{"a project without role", mine, nil}, {"another role", mine, nil},
		{"reader", mine, audit}, {"reader", public, read}, {"reader", theirs, nil}, {"reader", of{"theirs", "community"}, read},
		{"member", mine, change}, {"member", public, read}, {"member", theirs, nil},
		{"reader without project", of{"", "private"}, nil},
		{"administrator", mine, every}, {"administrator", theirs, every}, {"daemon", theirs, every},
		{"anonymous, public", public, read}, {"anonymous, public", of{"theirs", "community"}, nil}, {"anonymous, public", mine, nil},
		{"anonymous, all", theirs, read}, {"reader with a grant", theirs, read},
	} {
		img := records.Image{ID: "i", Owner: c.img.owner, Visibility: c.img.visibility}
		for _, v := range every {
			err := access.Check(identities[c.who], v, img)
			if may := slices.Contains(c.want, v); (err == nil) != may {
				t.Errorf("%s: %s of a %s image of %s: %v, want it allowed: %v", c.who, v, img.Visibility, img.Owner, err, may)
			}
			if seen := access.Check(identities[c.who], access.Show, img) == nil; err != nil && errors.Is(err, access.ErrHidden) == seen {
				t.Errorf("%s: %s: %v, and the image can be seen: %v", c.who, v, err, seen)
			}
		}
	}
	for who, want := range map[string]string{
		"nobody": "[]", "another role": "[]", "reader": "[get_images]", "member": "[get_images add_image]", "anonymous, all": "[]",
		"administrator": "[get_images add_image publicize_image set the owner admin]",
	} {
		var may []access.Verb
		for _, v := range []access.Verb{access.List, access.Create, access.Publicize, access.SetOwner, access.Administer} {
			if access.May(identities[who], v) == nil {
				may = append(may, v)
			}
		}
		if fmt.Sprint(may) != want {
			t.Errorf("%s may %v, want %s", who, may, want)
		}
	}
}
