// Package hostuser says who the users of this host are to the catalog. Whoever
// reaches a door that only this host can reach (the control socket, the NBD socket,
// the mount) is told apart by the kernel, and is the same identity at each of them.
package hostuser

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"glanced/catalog/access"
)

// AdminProject is the project of root and of the daemon's own user.
const AdminProject = "admin"

// ErrUnknown says that a user is in no entry. It comes with access.ErrDenied.
var ErrUnknown = errors.New("no [[control.users]] of the daemon's configuration names this user, or a group that they are in")

// Entry makes a user of the host, or all members of a group, an identity. Names may
// be numbers where the host has no such name.
type Entry struct {
	User, Group string // one of them
	Project     string
	Roles       []string
}

// Caller is a process as the kernel has it.
type Caller struct {
	UID    uint32
	Groups []uint32 // its own and the supplementary ones
}

// Table is what the entries say. It does not change, and is safe for concurrent use.
type Table struct {
	self   uint32 // the daemon's user
	users  map[uint32]access.Identity
	groups []group // those of administrators first, each kind in the order of the entries
}

type group struct {
	id  uint32
	who access.Identity // without User
}

// New looks the names up. It fails for a name that the host does not have, and for
// a user or group that stands in two entries.
func New(entries []Entry) (*Table, error) {
	t := &Table{self: uint32(os.Geteuid()), users: map[uint32]access.Identity{}}
	for _, e := range entries {
		if (e.User == "") == (e.Group == "") {
			return nil, errors.New("an entry names a user or a group, one of them")
		}
		who := access.Identity{User: e.User, Project: e.Project, Roles: slices.Clone(e.Roles)}
		var twice bool
		if e.User != "" {
			id, err := userID(e.User)
			if err != nil {
				return nil, err
			}
			_, twice = t.users[id]
			t.users[id] = who
		} else {
			id, err := groupID(e.Group)
			if err != nil {
				return nil, err
			}
			twice = slices.ContainsFunc(t.groups, func(g group) bool { return g.id == id })
			t.groups = append(t.groups, group{id, who})
		}
		if twice {
			return nil, fmt.Errorf("%s%s stands in two entries", e.User, e.Group)
		}
	}
	slices.SortStableFunc(t.groups, func(a, b group) int {
		switch x, y := a.who.IsAdmin(), b.who.IsAdmin(); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	return t, nil
}

// Identity is who a caller is: root and the daemon's own user are administrators;
// others are what the entry of their user says, or else that of one of their groups,
// an administrator's before others, then the first. ErrUnknown for who is in none.
func (t *Table) Identity(c Caller) (access.Identity, error) {
	if c.UID == 0 || c.UID == t.self {
		return access.Identity{User: nameOf(c.UID), Project: AdminProject, Roles: []string{access.Admin}}, nil
	}
	if who, ok := t.users[c.UID]; ok {
		return who, nil
	}
	for _, g := range t.groups {
		if slices.Contains(c.Groups, g.id) {
			who := g.who
			who.User = nameOf(c.UID)
			return who, nil
		}
	}
	return access.Identity{}, fmt.Errorf("user %s is %w: %w", nameOf(c.UID), access.ErrDenied, ErrUnknown)
}

// Administrators are those of the entries: users tells of each user that has an
// entry whether they are one, for a user's own entry counts before those of groups.
func (t *Table) Administrators() (users map[uint32]bool, groups []uint32) {
	users = map[uint32]bool{}
	for id, who := range t.users {
		users[id] = who.IsAdmin()
	}
	for _, g := range t.groups {
		if g.who.IsAdmin() {
			groups = append(groups, g.id)
		}
	}
	return users, groups
}

// NamesGroup tells whether a group, by its id, has an entry.
func (t *Table) NamesGroup(id uint32) bool {
	return slices.ContainsFunc(t.groups, func(g group) bool { return g.id == id })
}

func userID(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return number(u.Uid)
	}
	if id, bad := number(name); bad == nil {
		return id, nil
	}
	return 0, fmt.Errorf("there is no user %q on this host: %w", name, err)
}

func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err == nil {
		return number(g.Gid)
	}
	if id, bad := number(name); bad == nil {
		return id, nil
	}
	return 0, fmt.Errorf("there is no group %q on this host (addgroup --system %s makes it): %w", name, name, err)
}

func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}

// nameOf is the number itself where the host has no name for it.
func nameOf(uid uint32) string {
	text := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(text); err == nil {
		return u.Username
	}
	return text
}
