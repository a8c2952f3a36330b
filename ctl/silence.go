package ctl

import (
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// The limits on clients that say or take nothing. None is on the whole of a transfer:
// an image of a terabyte takes as long as it takes.

// DefaultStall is how long a client may take none of a download, or give none
// of an upload, before its connection is closed. Without it a client that went
// silent would hold an image in status saving for ever.
const DefaultStall = 5 * time.Minute

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

// patientBody gives the client stall for each read, however long the whole takes:
// a deadline for the whole would end large uploads, none would let a silent
// client hold the image in status saving.
type patientBody struct {
	io.Reader
	rc    *http.ResponseController
	stall time.Duration
}

func (b *patientBody) Read(p []byte) (int, error) {
	// Not every connection has deadlines; those that have none just wait.
	b.rc.SetReadDeadline(time.Now().Add(b.stall))
	return b.Reader.Read(p)
}

// patientWriter writes an answer to a client that may be slow, but has to take some
// of it within stall.
type patientWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
}

func (s *Server) patient(w http.ResponseWriter) *patientWriter {
	return &patientWriter{w: w, rc: http.NewResponseController(w), stall: s.stall}
}

// atOnce is how much is written under one deadline, bytes. net/http gives a
// connection up at a deadline, whatever part of the bytes had gone out: a client
// that takes this much in the time counts as one that takes some.
const atOnce = 64 << 10

func (p *patientWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		p.rc.SetWriteDeadline(time.Now().Add(p.stall))
		var m int
		m, err = p.w.Write(b[:min(len(b), atOnce)])
		n, b = n+m, b[m:]
	}
	return n, err
}

var noBytes [atOnce]byte

// zeros writes n zeros.
func (p *patientWriter) zeros(n int64) error {
	for n > 0 {
		m, err := p.Write(noBytes[:min(n, atOnce)])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

// file writes n bytes of f from its position on, by sendfile where net/http can. Its
// position moves as the bytes go out, which tells whether the client takes any.
func (p *patientWriter) file(f *os.File, n int64) error {
	watch := watchPosition(f, p.rc, p.stall)
	sent, err := p.w.(io.ReaderFrom).ReadFrom(io.LimitReader(f, n))
	watch.stop()
	if err == nil && sent != n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// positionWatch puts a connection's write deadline off as long as a file's position
// moves.
type positionWatch struct {
	f     *os.File
	rc    *http.ResponseController
	stall time.Duration

	mu      sync.Mutex
	timer   *time.Timer
	last    int64
	stopped bool
}

func watchPosition(f *os.File, rc *http.ResponseController, stall time.Duration) *positionWatch {
	w := &positionWatch{f: f, rc: rc, stall: stall, last: -1}
	w.mu.Lock()
	defer w.mu.Unlock()
	rc.SetWriteDeadline(time.Now().Add(stall))
	w.timer = time.AfterFunc(stall/2, w.look)
	return w
}

func (w *positionWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if at, err := w.f.Seek(0, io.SeekCurrent); err == nil && at != w.last {
		w.last = at
		w.rc.SetWriteDeadline(time.Now().Add(w.stall))
	}
	w.timer.Reset(w.stall / 2)
}

// stop returns when the deadline is no longer touched: the connection may be at its
// next request soon.
func (w *positionWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
