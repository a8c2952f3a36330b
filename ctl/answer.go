package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"glanced/backends/budget"
	"glanced/catalog"
)

// What an answer that shows images may hold of their records, bytes: one image of the
// largest that the catalog takes in at least, and so many at most that pages of ordinary
// images are not cut.
const (
	leastRecords = 384 << 10
	mostRecords  = 2 << 20
)

// recordsWithin is how long an answer waits for memory.
const recordsWithin = 10 * time.Second

// retryAfter is when who was refused for lack of room is to come again, seconds.
const retryAfter = "10"

// answerPiece is how much of an answer is made before it is sent, bytes.
const answerPiece = 64 << 10

// holdRecords waits for between least and most bytes of memory for the records that an
// answer shows. It counts as the
// caller's project's, so that who has many answers under way, and takes them slowly, makes
// others wait no longer.
func (s *Server) holdRecords(ctx context.Context, who Identity, least, most int64) (*budget.Hold, error) {
	wait, cancel := context.WithTimeout(ctx, recordsWithin)
	defer cancel()
	h, err := s.records.Take(wait, who.Project, least, most)
	if err == nil {
		return h, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fail(http.StatusServiceUnavailable, "There is no memory for this answer now, as others are being sent: try again").with("Retry-After", retryAfter)
}

// bodyRecords is what a JSON body and the record that is made of it take, bytes.
func bodyRecords(r *http.Request) int64 {
	n := r.ContentLength
	if n < 0 || n > maxJSON {
		n = maxJSON
	}
	return leastRecords + bodyFactor*n
}

// answerImage answers with one image, which h holds memory for.
func (s *Server) answerImage(w http.ResponseWriter, status int, img catalog.Image, h *budget.Hold) error {
	h.Keep(img.Bytes() + answerPiece)
	a := s.newAnswer(w, status)
	a.object(renderImage(img))
	a.end()
	return nil
}

// answer is JSON on its way to a client. What fits into one piece is sent with its length,
// the rest in pieces as it is made: an answer takes no more memory than what it shows. A
// client that is gone is no one's error.
type answer struct {
	w      http.ResponseWriter
	to     *patientWriter
	status int
	buf    bytes.Buffer
	enc    *json.Encoder
	begun  bool
	failed bool
}

func (s *Server) newAnswer(w http.ResponseWriter, status int) *answer {
	a := &answer{w: w, to: s.patient(w), status: status}
	a.enc = json.NewEncoder(&a.buf)
	a.enc.SetEscapeHTML(false)
	return a
}

// text adds what is JSON already.
func (a *answer) text(s string) { a.buf.WriteString(s) }

// value adds v, which must be made of what encoding/json cannot fail on.
func (a *answer) value(v any) { a.add(v, 0) }

// open adds v, an object of which more is to come: text adds that, and the "}".
func (a *answer) open(v any) { a.add(v, len("}")) }

// add adds v without its last bytes.
func (a *answer) add(v any, without int) {
	if a.failed {
		return
	}
	if err := a.enc.Encode(v); err != nil {
		panic(err)
	}
	a.buf.Truncate(a.buf.Len() - len("\n") - without) // the encoder's newline
	if a.buf.Len() >= answerPiece {
		a.flush()
	}
}

// object adds one, its keys in order.
func (a *answer) object(v map[string]any) {
	for i, key := range slices.Sorted(maps.Keys(v)) {
		a.text(map[bool]string{true: "{", false: ","}[i == 0])
		a.value(key)
		a.text(":")
		a.value(v[key])
	}
	a.text("}")
}

func (a *answer) flush() {
	if !a.begun {
		a.begun = true
		a.w.Header().Set("Content-Type", "application/json")
		a.w.WriteHeader(a.status)
	}
	if !a.failed {
		_, err := a.to.Write(a.buf.Bytes())
		a.failed = err != nil
	}
	a.buf.Reset()
}

// end sends the rest.
func (a *answer) end() {
	if !a.begun {
		a.w.Header().Set("Content-Length", strconv.Itoa(a.buf.Len()))
	}
	a.flush()
}
