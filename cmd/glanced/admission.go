package main

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// admission bounds the connections of one HTTP server, so that what it opens leaves
// files for the other doors. A new connection takes the place of the one that has
// been idle for longest; where none is idle, it is closed. Safe for concurrent use.
type admission struct {
	limit int
	log   *slog.Logger
	door  string

	mu      sync.Mutex
	open    map[net.Conn]*list.Element // nil: busy
	idle    list.List                  // of net.Conn, longest first
	refused int
	told    rate.Sometimes
}

func admit(limit int, door string, log *slog.Logger) *admission {
	return &admission{limit: limit, log: log, door: door, open: map[net.Conn]*list.Element{},
		told: rate.Sometimes{First: 1, Interval: time.Minute}}
}

// changed is http.Server's ConnState: nothing else sees the plain connection, and one
// that is wrapped could not be handed to sendfile(2).
func (a *admission) changed(c net.Conn, state http.ConnState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch state {
	case http.StateNew:
		if len(a.open) >= a.limit && !a.makeRoom() {
			a.refuse(c)
			return
		}
		a.open[c] = nil
	case http.StateActive:
		a.busy(c)
	case http.StateIdle:
		if _, ok := a.open[c]; ok {
			a.open[c] = a.idle.PushBack(c)
		}
	case http.StateClosed, http.StateHijacked:
		a.busy(c)
		delete(a.open, c)
	}
}

func (a *admission) busy(c net.Conn) {
	if at := a.open[c]; at != nil {
		a.idle.Remove(at)
		a.open[c] = nil
	}
}

// makeRoom closes the connection that has been idle for longest.
func (a *admission) makeRoom() bool {
	at := a.idle.Front()
	if at == nil {
		return false
	}
	c := a.idle.Remove(at).(net.Conn)
	delete(a.open, c)
	c.Close()
	return true
}

func (a *admission) refuse(c net.Conn) {
	c.Close()
	a.refused++
	a.told.Do(func() {
		a.log.Warn("too many connections, some refused", "door", a.door, "limit", a.limit, "refused", a.refused)
	})
}
