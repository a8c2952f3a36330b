package ctl

import "testing"

func TestPeersOnTheControlSocket(t *testing.T) {
	const self = 64000
	for uid, want := range map[uint32]Identity{
		0:     {User: "root", Project: ControlProject, Admin: true},
		self:  {User: "64000", Project: ControlProject, Admin: true},
		64001: {User: "64001", Project: "64001"},
	} {
		got := identityOfUID(uid, self)
		if got.User != want.User || got.Project != want.Project || got.Admin != want.Admin {
			t.Errorf("uid %d is %+v, want %+v", uid, got, want)
		}
	}
}
