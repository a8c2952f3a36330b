package main

import (
	"fmt"
	"net"

	"glanced/catalog/access"
	"glanced/catalog/access/hostuser"
)

// lookUpUsers reads control.users.
func (d *daemon) lookUpUsers() error {
	var entries []hostuser.Entry
	for _, u := range d.cfg.Control.Users {
		entries = append(entries, hostuser.Entry{User: u.User, Group: u.Group, Project: u.Project, Roles: u.Roles})
	}
	var err error
	if d.users, err = hostuser.New(entries); err != nil {
		return fmt.Errorf("control.users: %w", err)
	}
	if d.cfg.Control.Group == "" {
		return nil
	}
	gid, err := groupID(d.cfg.Control.Group)
	if err == nil && !d.users.NamesGroup(uint32(gid)) {
		d.log.Warn("the sockets are open to a group that has no entry in control.users: its members are refused, but for those with an entry of their own", "group", d.cfg.Control.Group)
	}
	return err
}

// peer is who is at the other end of the NBD socket, or why nobody is.
type peer struct {
	who access.Identity
	err error
}

// who is for nbd.Config: a peer, where the kernel knows who connected.
func (e *exports) who(c net.Conn) any {
	if _, ok := c.(*net.UnixConn); !ok {
		return nil
	}
	who, err := e.users.Of(c)
	return peer{who, err}
}
