package records

import "slices"

// Scope is a set of images, told by who owns them and how visible they are: an image
// is in it that one of the Owners owns, or that has one of the visibilities. The
// zero value is the empty set. It is data, so that a database can select by it;
// whose scope is which is catalog/access's.
type Scope struct {
	All        bool     // every image
	Owners     []string // project ids
	Visibility []string // public | private | shared | community
}

// Everything is every image.
var Everything = Scope{All: true}

// Contains tells whether img is in the scope.
func (s Scope) Contains(img Image) bool {
	return s.All || slices.Contains(s.Owners, img.Owner) || slices.Contains(s.Visibility, img.Visibility)
}

// Or is what is in s or in o.
func (s Scope) Or(o Scope) Scope {
	if s.All || o.All {
		return Everything
	}
	return Scope{Owners: slices.Concat(s.Owners, o.Owners), Visibility: slices.Concat(s.Visibility, o.Visibility)}
}
