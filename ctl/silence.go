package ctl

import (
	"net/http"
	"time"
)

// bodyWithin is how long a body that is not an image's data may take to come in.
const bodyWithin = time.Minute

// awaitBody bounds the wait for a request's body. net/http has a limit for the
// header alone, as the server may set none that would hold for an upload too; and
// it waits for the body of any request, of strangers and of routes that take
// none, before it sends the answer. An upload moves the limit on as it reads.
func (s *Server) awaitBody(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if r.ContentLength != 0 {
		rc.SetReadDeadline(time.Now().Add(min(bodyWithin, s.stall)))
	}
	// That of the connection's last answer, which may have passed.
	rc.SetWriteDeadline(time.Time{})
}

// awaitReader bounds the wait for a client that takes none of its answer; a
// download moves the limit on as it sends.
func (w *recorder) awaitReader() {
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.stall))
}
