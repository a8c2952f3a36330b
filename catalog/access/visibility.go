package access

import "glanced/catalog/records"

// Who sees an image beside its owner and administrators.
const (
	Public    = "public"    // everyone; listed by default
	Community = "community" // everyone; listed for who asks for it
	Shared    = "shared"    // its members; there are none yet
	Private   = "private"   // nobody
)

// Visibilities are all of them.
var Visibilities = []string{Community, Public, Private, Shared}

// Sees is the rule of visibility: the images that an identity may know of, and read.
// (An image's members will have their place here and in records.Scope.)
func Sees(who Identity) records.Scope {
	switch {
	case who.IsAdmin():
		return records.Everything
	case who.rank() == 0:
		return who.Granted
	}
	return ownOf(who).Or(records.Scope{Visibility: []string{Public, Community}}).Or(who.Granted)
}

// Listed is which of the images that an identity sees a list shows it; nil = all.
// visibility is the filter that it asked for: one of Visibilities, all, or none (""),
// which leaves out the community images of others, as in Glance.
func Listed(who Identity, visibility string) *records.Scope {
	switch visibility {
	case "all":
		return nil
	case "":
		list := ownOf(who).Or(records.Scope{Visibility: []string{Public, Shared, Private}})
		return &list
	}
	return &records.Scope{Visibility: []string{visibility}}
}

// ownOf is what the identity's project owns; an identity without one owns nothing.
func ownOf(who Identity) records.Scope {
	if who.Project == "" {
		return records.Scope{}
	}
	return records.Scope{Owners: []string{who.Project}}
}
