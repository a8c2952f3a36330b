// Package access is the one place that says who may do what with images. Whoever
// serves them, over whatever protocol, asks it with the Identity of the caller; the
// set of images that an identity sees is a records.Scope, by which the database
// lists and Check decides, so that the two cannot differ.
//
// The rules are Glance's secure defaults (glance/policies/image.py, base.py): a
// reader reads what the project owns and what everyone may see, a member changes what
// the project owns, an administrator does everything.
package access

import (
	"slices"
	"strings"

	"glanced/catalog/records"
)

// Identity is who asks. The zero value is nobody: it sees nothing.
type Identity struct {
	User, Project string // ids or names, as the authenticator has them
	Roles         []string

	// Granted are images that it may read whatever its roles: what NBD clients
	// without a name are shown. A ticket or a certificate will give such grants too.
	Granted records.Scope
}

// The roles that count; names of roles have no case in OpenStack. Each includes
// those before it. Others are kept and mean nothing here.
const (
	Reader = "reader"
	Member = "member"
	Admin  = "admin"
)

// roles is in rising order.
var roles = []string{Reader, Member, Admin}

// rank of an identity is the number of roles that it has by its highest one; 0 = none.
func (i Identity) rank() int {
	highest := 0
	for _, name := range i.Roles {
		highest = max(highest, rankOf(name))
	}
	return highest
}

func rankOf(role string) int {
	return 1 + slices.IndexFunc(roles, func(r string) bool { return strings.EqualFold(r, role) })
}

// IsAdmin tells whether it may see and change what other projects own.
func (i Identity) IsAdmin() bool { return i.rank() == rankOf(Admin) }

// AnyRole tells whether one of the names is a role that counts. Who has none can do
// nothing at all.
func AnyRole(names []string) bool { return Identity{Roles: names}.rank() > 0 }

// System is the daemon itself.
func System() Identity { return Identity{User: "glanced", Roles: []string{Admin}} }

// OwnerOf is the project that owns img, reading: what an image of its own may stand on
// is what it can read.
func OwnerOf(img records.Image) Identity {
	return Identity{Project: img.Owner, Roles: []string{Reader}}
}

// Anyone is a client without a name that may read what is in granted.
func Anyone(granted records.Scope) Identity {
	return Identity{User: "anonymous", Granted: granted}
}
