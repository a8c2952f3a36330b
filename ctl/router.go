package ctl

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// handler does one request of a known caller. When it returns an error, nothing
// of the answer may have been written yet.
type handler func(s *Server, w http.ResponseWriter, r *http.Request, who Identity) error

// method is one verb of a route; body says whether it takes one.
type method struct {
	verb string
	body bool
	do   handler
}

// route lists its methods in the order in which Glance's Allow header has them.
type route struct {
	pattern string
	methods []method
}

// imageRoutes is the whole Images API as it is now. What is not here (import,
// staging, tasks, metadefs, the cache) answers 404, so that clients that probe
// for it find out.
var imageRoutes = []route{
	{"/v2", []method{{"GET", false, (*Server).listVersionsInside}}},
	{"/v2/images", []method{
		{"GET", false, (*Server).listImages},
		{"POST", true, (*Server).createImage}}},
	{"/v2/images/{id}", []method{
		{"GET", false, (*Server).showImage},
		{"PATCH", true, (*Server).patchImage},
		{"DELETE", false, (*Server).deleteImage}}},
	{"/v2/images/{id}/file", []method{
		{"GET", false, (*Server).download},
		{"PUT", true, (*Server).upload}}},
	{"/v2/images/{id}/tags/{tag}", []method{
		{"PUT", false, (*Server).addTag},
		{"DELETE", false, (*Server).removeTag}}},
	{"/v2/images/{id}/actions/deactivate", []method{{"POST", false, (*Server).deactivate}}},
	{"/v2/images/{id}/actions/reactivate", []method{{"POST", false, (*Server).reactivate}}},
	{"/v2/images/{id}/members", []method{{"GET", false, (*Server).listMembers}}},
	{"/v2/schemas/image", []method{{"GET", false, (*Server).imageSchema}}},
	{"/v2/schemas/images", []method{{"GET", false, (*Server).imagesSchema}}},
	{"/v2/info/import", []method{{"GET", false, (*Server).importInfo}}},
	{"/v2/info/stores", []method{{"GET", false, (*Server).storesInfo}}},
	{"/v2/info/usage", []method{{"GET", false, (*Server).usageInfo}}},
	{"/v2/", nil},
}

// adminRoutes are of the control socket only.
var adminRoutes = []route{
	{"/admin/status", []method{{"GET", false, (*Server).adminStatus}}},
	{"/admin/exports", []method{{"GET", false, (*Server).adminExports}}},
	{"/admin/mounts", []method{{"GET", false, (*Server).adminMounts}}},
	{"/admin/held", []method{{"GET", false, (*Server).showHeld}}},
	{"/admin/images/{id}/location", []method{{"PUT", true, (*Server).setLocation}}},
	{"/admin/stores/{id}/check", []method{{"POST", false, (*Server).checkStore}}},
	{"/admin/quotas/{project}", []method{
		{"GET", false, (*Server).showQuota},
		{"PUT", true, (*Server).setQuota},
		{"DELETE", false, (*Server).resetQuota}}},
	{"/admin/cache", []method{{"GET", false, (*Server).showCache}}},
	{"/admin/cache/{id}", []method{
		{"GET", false, (*Server).showCachedImage},
		{"DELETE", false, (*Server).evictImage}}},
	{"/admin/cache/{id}/prefetch", []method{{"POST", false, (*Server).prefetchImage}}},
	{"/admin/cache/{id}/pin", []method{
		{"PUT", false, (*Server).pinImage},
		{"DELETE", false, (*Server).unpinImage}}},
	{"/admin/", nil},
}

// handle adds routes to mux. A route without methods answers 404 to known
// callers, and 401 to all others: what exists is not told to strangers.
func (s *Server) handle(mux *http.ServeMux, ask identify, routes []route) {
	for _, rt := range routes {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, ask, rt)
		})
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, ask identify, rt route) {
	// On a copy: net/http looks at the Body of its own request, to see whether the
	// client still waits to be told to send.
	body := &countedBody{ReadCloser: r.Body, rc: http.NewResponseController(w)}
	r = r.WithContext(r.Context())
	r.Body = body
	err := s.dispatch(w, r, ask, rt)
	if err == nil {
		return
	}
	e := explain(err)
	switch {
	case e.status == http.StatusUnauthorized:
		e.with("WWW-Authenticate", s.challenge())
	case errors.Is(err, ErrNotChecked):
		e.with("Retry-After", retryAfter)
	}
	level := slog.LevelDebug
	if e.status >= 500 {
		level = slog.LevelError
	}
	s.log.Log(r.Context(), level, "request failed", "request", w.Header().Get(requestIDHeader),
		"method", r.Method, "path", r.URL.Path, "status", e.status, "err", err)
	answerUnread(w, r, body, e)
}

// dispatch runs the checks that every route has in common, in Glance's order.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, ask identify, rt route) error {
	who, err := ask(r)
	if err != nil {
		return err
	}
	if len(rt.methods) == 0 {
		return fail(http.StatusNotFound, "The resource could not be found.")
	}
	var allow []string
	for _, m := range rt.methods {
		allow = append(allow, m.verb)
		if m.verb != r.Method {
			continue
		}
		if err := plainText(r); err != nil {
			return err
		}
		if !m.body && r.ContentLength != 0 {
			if n, _ := r.Body.Read(make([]byte, 1)); n > 0 {
				return fail(http.StatusBadRequest, "A body is not expected with this request.")
			}
		}
		return m.do(s, w, r, who)
	}
	return fail(http.StatusMethodNotAllowed, "The method %s is not allowed for this resource.", r.Method).
		with("Allow", strings.Join(allow, ", "))
}

// plainText refuses names that are no text, before they reach a record.
func plainText(r *http.Request) error {
	if !utf8.ValidString(r.URL.Path) {
		return fail(http.StatusBadRequest, "The path is not valid UTF-8.")
	}
	return nil
}

func (s *Server) challenge() string {
	if c, ok := s.auth.(Challenger); ok && c.Challenge() != "" {
		return c.Challenge()
	}
	return defaultChallenge
}

// errPanicked is explained as every error is of which nothing is known.
var errPanicked = errors.New("a request panicked")

const requestIDHeader = "X-Openstack-Request-Id"

// around is what every request passes through, known caller or not: its id, its
// line in the log, the version in its path, and a panic's end.
func (s *Server) around(mux *http.ServeMux) http.Handler {
	mux.HandleFunc("/versions", s.listVersions(http.StatusOK))
	mux.HandleFunc("/healthcheck", healthcheck)
	mux.HandleFunc("/", s.listVersions(http.StatusMultipleChoices))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, stall: s.stall}
		s.awaitBody(w, r)
		id := "req-" + uuid.NewString()
		rec.Header().Set(requestIDHeader, id)
		start := time.Now()
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler {
				s.log.Error("a request panicked", "request", id, "method", r.Method, "path", r.URL.Path,
					"panic", p, "stack", string(debug.Stack()))
				if rec.status == 0 {
					rec.Header().Set("Connection", "close") // what the body's reader was doing is unknown
					answerError(rec, explain(errPanicked))
					p = nil
				}
			}
			s.logAccess(r, rec, id, time.Since(start))
			if p != nil {
				panic(http.ErrAbortHandler) // half an answer is out: net/http closes the connection
			}
		}()
		if r.Method == http.MethodOptions {
			rec.WriteHeader(http.StatusOK) // as a Glance without CORS origins configured
			return
		}
		mux.ServeHTTP(rec, negotiate(r))
	})
}

func healthcheck(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	io.WriteString(w, "OK")
}

func (s *Server) logAccess(r *http.Request, rec *recorder, id string, took time.Duration) {
	level := slog.LevelInfo
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		level = slog.LevelDebug
	}
	s.log.Log(r.Context(), level, "request", "request", id, "peer", r.RemoteAddr, "method", r.Method,
		"path", r.URL.Path, "status", rec.status, "bytes", rec.bytes, "took", took)
}

// recorder remembers what the access log wants to know. It keeps the abilities
// of what it wraps: Unwrap for http.ResponseController, ReadFrom for sendfile.
type recorder struct {
	http.ResponseWriter
	stall  time.Duration
	status int
	bytes  int64
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		w.awaitReader()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	w.wrote()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	w.wrote()
	var n int64
	var err error
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		n, err = rf.ReadFrom(src)
	} else {
		n, err = io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
	}
	w.bytes += n
	return n, err
}

func (w *recorder) wrote() {
	if w.status == 0 {
		w.status = http.StatusOK
		w.awaitReader()
	}
}
