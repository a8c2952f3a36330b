package ctl

import (
	"context"
	"errors"
	"net"
)

type peerKey struct{}

type peer struct {
	who Identity
	err error
}

// ControlConnContext is the http.Server.ConnContext of the control socket: it asks
// Config.Peer once for each connection.
func (s *Server) ControlConnContext(ctx context.Context, c net.Conn) context.Context {
	p := peer{err: errors.New("nobody can tell who connected: Config.Peer is not set")}
	if s.peer != nil {
		p.who, p.err = s.peer(c)
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerFrom(ctx context.Context) (Identity, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return Identity{}, errors.New("the control handler is served without ControlConnContext")
	}
	return p.who, p.err
}
