// Package ctl is the HTTP door: the OpenStack Images API v2, and the admin
// routes of the control socket. It knows who asks (auth.go, peer.go), what they
// may do (catalog/access) and how Glance words its answers; what an image is, and
// where its bytes lie, is the catalog's.
//
// One request is one function of its story's file, named by the table in
// router.go. It returns an error, and errors.go alone decides which status and
// words that becomes. What is right is judged against exchanges with a real
// Glance, kept in testdata/captures.
package ctl

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"glanced/backends/budget"
	"glanced/catalog"
)

// Config is what a Server is made of. Catalog and Auth are required.
type Config struct {
	Catalog *catalog.Catalog
	Auth    Authenticator                    // of HTTP
	Peer    func(net.Conn) (Identity, error) // of the control socket: who is at the other end
	Admin   Admin
	Log     *slog.Logger // nil: slog.Default()
	// TrustForwarded makes absolute links follow X-Forwarded-Proto and
	// X-Forwarded-Host. Only right behind a proxy that sets them itself, so it is
	// off unless asked for, as Glance's enable_proxy_headers_parsing is.
	TrustForwarded bool
	Stall          time.Duration // 0: DefaultStall
	// Records is the memory for the images' records that answers show; nil: one of 32 MiB.
	Records *budget.Budget
	// Memory is for downloads, besides the 64 KiB that each may take; nil: one of 64 MiB.
	Memory *budget.Budget
}

// Server answers both doors. Safe for concurrent use.
type Server struct {
	catalog        *catalog.Catalog
	auth           Authenticator
	peer           func(net.Conn) (Identity, error)
	admin          Admin
	log            *slog.Logger
	trustForwarded bool
	stall          time.Duration
	schemas        schemas
	memory         *budget.Budget
	records        *budget.Accounts // by project
}

// New makes a Server; it starts nothing and owns nothing.
func New(cfg Config) *Server {
	s := &Server{
		catalog:        cfg.Catalog,
		auth:           cfg.Auth,
		peer:           cfg.Peer,
		admin:          cfg.Admin,
		log:            cfg.Log,
		trustForwarded: cfg.TrustForwarded,
		stall:          cfg.Stall,
		memory:         cfg.Memory,
		schemas:        newSchemas(),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.memory == nil {
		s.memory = budget.New(64 << 20)
	}
	if cfg.Records == nil {
		cfg.Records = budget.New(32 << 20)
	}
	s.records = cfg.Records.Accounts()
	if s.stall == 0 {
		s.stall = DefaultStall
	}
	return s
}

// HTTP serves the Images API v2 to whoever holds a token (X-Auth-Token).
func (s *Server) HTTP() http.Handler {
	mux := http.NewServeMux()
	s.handle(mux, s.tokenIdentity, imageRoutes)
	return s.around(mux)
}

// Control serves the same API and /admin/… on the control socket, whose
// http.Server must have ControlConnContext. Who may connect at all is the
// socket's file mode; who they are is Config.Peer's.
func (s *Server) Control() http.Handler {
	mux := http.NewServeMux()
	s.handle(mux, s.peerIdentity, imageRoutes)
	s.handle(mux, s.peerIdentity, adminRoutes)
	return s.around(mux)
}

// identify says who sent a request; ErrUnauthorized when nobody we know.
type identify func(*http.Request) (Identity, error)

// tokenIdentity asks the configured Authenticator.
func (s *Server) tokenIdentity(r *http.Request) (Identity, error) {
	return s.auth.Authenticate(r.Context(), r.Header)
}

// peerIdentity takes what ControlConnContext left.
func (s *Server) peerIdentity(r *http.Request) (Identity, error) {
	return peerFrom(r.Context())
}

// Admin is what only the process around the catalog knows, for the admin
// routes. A nil function makes its route answer 404.
type Admin struct {
	Status  func(context.Context) (Status, error)
	Exports func(context.Context) (ExportStatus, error)
	Mounts  func(context.Context) (MountStatus, error)
	Cache   CacheAdmin // nil: there is none
}
