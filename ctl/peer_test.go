package ctl

import "testing"

func TestPeersOnTheControlSocket(t *testing.T) {
	const self = 64000
	for _, c := range []struct {
		uid           uint32
		name, project string
		admin         bool
	}{
		{0, "root", ControlProject, true},
		{self, "glance", ControlProject, true},
		{64001, "lan", "lan", false},
		{64002, ControlProject, "uid-64002", false},
	} {
		got := identityOf(c.uid, self, c.name)
		if got.User != c.name || got.Project != c.project || got.IsAdmin() != c.admin {
			t.Errorf("uid %d is %+v, want %+v", c.uid, got, c)
		}
	}
	if name := nameOfUID(0); name != "root" {
		t.Errorf("uid 0 is named %q", name)
	}
	if name := nameOfUID(4294967294); name != "4294967294" {
		t.Errorf("a user without a name is named %q", name)
	}
}
