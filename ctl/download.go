package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"glanced/catalog"
)

const (
	copyBuffer = 1 << 20 // bytes read from the store, and then written, at a time
	// sendPiece is how much of a local file the kernel sends before we look again
	// whether the image was revoked.
	sendPiece = 8 << 20
)

// download is GET /v2/images/{id}/file: the bytes as they were stored, or, where
// disk_format asks for it, the guest disk in another format.
func (s *Server) download(w http.ResponseWriter, r *http.Request, who Identity) error {
	img, err := s.find(r, who, actDownload)
	if err != nil {
		return err
	}
	format, snapshot, err := encodingAsked(r)
	if err != nil {
		return err
	}
	v := catalog.View{Stored: format == "", Snapshot: snapshot, Deactivated: allowAny(who, actDownloadBlocked) == nil}
	h, err := s.catalog.Open(r.Context(), img.ID, v)
	if errors.Is(err, catalog.ErrNotFound) {
		return noImage(img.ID)
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if format != "" {
		return s.sendAs(w, r, h, format, v.Snapshot)
	}
	img = h.Image()
	tag := entityTag(img, "")
	if img.Checksum != nil {
		// Of the whole file even in a part of it, and in hex: so Glance has it, and
		// glanceclient compares it.
		w.Header().Set("Content-MD5", *img.Checksum)
	}
	return s.send(w, r, h, tag)
}

// body is what can be sent, or a range of it: a catalog.Handle, or an image that
// is encoded as it is read.
type body interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// fileRanger is an ability of a body; see catalog.Handle.
type fileRanger interface {
	FileRange(ctx context.Context, off, n int64) (f *os.File, pos int64, ok bool)
}

// prefetcher is one, too.
type prefetcher interface{ Prefetch(off, n int64) }

var (
	_ body       = (*catalog.Handle)(nil)
	_ fileRanger = (*catalog.Handle)(nil)
	_ prefetcher = (*catalog.Handle)(nil)
)

// send answers with b, or the range of it that r asks for. The headers that speak
// of b are set already.
func (s *Server) send(w http.ResponseWriter, r *http.Request, b body, tag string) error {
	header := w.Header()
	part, partial := byteRange{0, b.Size()}, false
	var err error
	if cond := r.Header.Get("If-Range"); cond == "" || cond == tag {
		if part, partial, err = requestedRange(r, b.Size()); err != nil {
			return withoutChecksum(header, err)
		}
	}
	t := &transfer{w: w, rc: http.NewResponseController(w), b: b, stall: s.stall}
	t.files, _ = b.(fileRanger)
	defer t.close()
	// Before the header, so that a store that fails at once is an answer still.
	if err := t.begin(r.Context(), part); err != nil {
		return withoutChecksum(header, err)
	}
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.FormatInt(part.n, 10))
	header.Set("Accept-Ranges", "bytes")
	if tag != "" {
		header.Set("ETag", tag)
	}
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		header.Set("Content-Range", part.contentRange(b.Size()))
	}
	w.WriteHeader(status)
	if err := t.copy(r.Context()); err != nil {
		s.breakOff(header, r, err)
	}
	return nil
}

// withoutChecksum takes back what was said of bytes that are not sent.
func withoutChecksum(header http.Header, err error) error {
	header.Del("Content-MD5")
	return err
}

// breakOff ends an answer that is under way: a broken connection is the only way
// left to say that it failed.
func (s *Server) breakOff(header http.Header, r *http.Request, err error) {
	s.log.Info("a download ended early", "request", header.Get(requestIDHeader), "path", r.URL.Path, "err", err)
	panic(http.ErrAbortHandler)
}

// entityTag names the bytes for If-Range (RFC 9110, 13.1.5). An image's data
// never changes, so its hash is the strongest tag there is; kind tells apart what is
// made of it.
func entityTag(img catalog.Image, kind string) string {
	if img.HashValue == nil {
		return ""
	}
	return `"` + *img.HashValue + kind + `"`
}

// transfer sends one range of a body: by sendfile where the body says that a local
// file holds it, through a buffer elsewhere.
type transfer struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	b     body
	files fileRanger // b, if it has that ability
	stall time.Duration

	rest byteRange // yet to be sent
	buf  []byte    // of copyBuffer; nil until needed
	full int       // bytes of buf that begin rest

	source *os.File // as the body named it
	file   *os.File // source opened again, for a position of its own
}

func (t *transfer) begin(ctx context.Context, part byteRange) error {
	t.rest = part
	if part.n == 0 {
		return nil
	}
	if _, _, ok := t.fileRange(ctx, part.off, min(part.n, sendPiece)); ok {
		return nil
	}
	return t.fill(ctx)
}

func (t *transfer) fileRange(ctx context.Context, off, n int64) (*os.File, int64, bool) {
	if t.files == nil {
		return nil, 0, false
	}
	return t.files.FileRange(ctx, off, n)
}

// fill reads the beginning of rest.
func (t *transfer) fill(ctx context.Context) error {
	if t.buf == nil {
		t.buf = make([]byte, min(t.rest.n, copyBuffer))
	}
	n := min(t.rest.n, int64(len(t.buf)))
	if err := t.b.ReadAt(ctx, t.buf[:n], t.rest.off); err != nil {
		return err
	}
	t.full = int(n)
	if p, ok := t.b.(prefetcher); ok && n < t.rest.n {
		p.Prefetch(t.rest.off+n, min(t.rest.n-n, copyBuffer))
	}
	return nil
}

// copy sends rest. It stops when the image is revoked (the handle then gives
// neither a file nor bytes), the client is gone or takes nothing for stall.
func (t *transfer) copy(ctx context.Context) error {
	for t.rest.n > 0 {
		t.rc.SetWriteDeadline(time.Now().Add(t.stall))
		n, err := t.piece(ctx)
		if err != nil {
			return fmt.Errorf("at byte %d: %w", t.rest.off, err)
		}
		t.rest.off += n
		t.rest.n -= n
	}
	return nil
}

func (t *transfer) piece(ctx context.Context) (int64, error) {
	if t.full == 0 {
		n := min(t.rest.n, sendPiece)
		if f, pos, ok := t.fileRange(ctx, t.rest.off, n); ok {
			return n, t.sendFile(f, pos, n)
		}
		if err := t.fill(ctx); err != nil {
			return 0, err
		}
	}
	n := t.full
	t.full = 0
	_, err := t.w.Write(t.buf[:n])
	return int64(n), err
}

// sendFile sends [pos, pos+n) of f. net/http hands an *os.File to sendfile(2) at
// the file's own position, which all readers of the handle share; so the file is
// opened a second time, by its descriptor, for a position of our own.
func (t *transfer) sendFile(f *os.File, pos, n int64) error {
	if t.source != f {
		t.close()
		again, err := reopen(f)
		if err != nil {
			return err
		}
		t.source, t.file = f, again
	}
	if _, err := t.file.Seek(pos, io.SeekStart); err != nil {
		return err
	}
	sent, err := t.w.(io.ReaderFrom).ReadFrom(io.LimitReader(t.file, n))
	if err == nil && sent != n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (t *transfer) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

func reopen(f *os.File) (again *os.File, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) { again, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)) }); e != nil {
		return nil, e
	}
	return again, err
}
