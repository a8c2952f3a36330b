package hostuser

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"glanced/catalog/access"
	"glanced/contrib/testbed"
)

func TestUsersAreWhoTheirEntrySays(t *testing.T) {
	table, err := New([]Entry{
		{Group: "64100", Project: "lab", Roles: []string{"member"}},
		{Group: "64101", Project: "ops", Roles: []string{"admin"}},
		{Group: "64102", Project: "late", Roles: []string{"reader"}},
		{User: "64001", Project: "lan", Roles: []string{"reader"}},
		{User: "daemon", Project: "d", Roles: []string{"member"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	table.self = 64009
	for _, c := range []struct {
		caller        Caller
		user, project string
		role          string
	}{
		{Caller{UID: 0}, "root", AdminProject, "admin"},
		{Caller{UID: 64009}, "64009", AdminProject, "admin"},
		{Caller{UID: 64001}, "64001", "lan", "reader"},
		{Caller{UID: 64001, Groups: []uint32{64100, 64101}}, "64001", "lan", "reader"}, // their own entry first
		{Caller{UID: 1}, "daemon", "d", "member"},
		{Caller{UID: 64002, Groups: []uint32{5, 64100}}, "64002", "lab", "member"},
		{Caller{UID: 64002, Groups: []uint32{64102, 64100}}, "64002", "lab", "member"}, // of groups the first entry
		{Caller{UID: 64002, Groups: []uint32{64100, 64101}}, "64002", "ops", "admin"},  // but an administrator's before
		{Caller{UID: 64002, Groups: []uint32{5}}, "", "", ""},
		{Caller{UID: 64003}, "", "", ""},
	} {
		who, err := table.Identity(c.caller)
		if c.role == "" {
			if !errors.Is(err, ErrUnknown) || !errors.Is(err, access.ErrDenied) || who.IsAdmin() || who.Project != "" {
				t.Errorf("%+v is %+v, %v", c.caller, who, err)
			}
			continue
		}
		if err != nil || who.User != c.user || who.Project != c.project || !slices.Equal(who.Roles, []string{c.role}) {
			t.Errorf("%+v is %+v, %v; want %s of %s, %s", c.caller, who, err, c.user, c.project, c.role)
		}
	}
	users, groups := table.Administrators()
	if len(users) != 2 || users[64001] || users[1] || !slices.Equal(groups, []uint32{64101}) {
		t.Errorf("administrators: %v, %v", users, groups)
	}
	for _, bad := range [][]Entry{
		{{Project: "p"}}, {{User: "root", Group: "root"}}, {{User: "no such user"}}, {{Group: "no such group"}}, {{User: "-1"}},
		{{User: "daemon"}, {User: "1"}}, {{Group: "64100"}, {User: "daemon"}, {Group: "64100"}},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// The kernel tells of a process of another user what it is, its supplementary groups too.
func TestThePeerIsAsTheKernelHasIt(t *testing.T) {
	if path := os.Getenv("HOSTUSER_TEST_CONNECT"); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Read(make([]byte, 1)) // until it was looked at
		return
	}
	if os.Geteuid() != 0 {
		testbed.Unable(t, "only root can be another user")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "test")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, groups := range [][]uint32{nil, {64101, 64102}, slices.Repeat([]uint32{64103}, 300)} {
		for i := range groups {
			groups[i] += uint32(i)
		}
		cmd := exec.Command(self, "-test.run", "^TestThePeerIsAsTheKernelHasIt$")
		cmd.Env = append(os.Environ(), "HOSTUSER_TEST_CONNECT="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64001, Gid: 64100, Groups: groups}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Peer(c)
		c.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		want := append(slices.Clone(groups), 64100)
		slices.Sort(want)
		slices.Sort(got.Groups)
		if err != nil || got.UID != 64001 || !slices.Equal(got.Groups, want) {
			t.Errorf("it is %d with %d groups, %v; want 64001 with %d", got.UID, len(got.Groups), err, len(want))
		}
	}
	if _, err := Peer(&net.TCPConn{}); err == nil {
		t.Error("a peer over TCP has a user")
	}
}
