package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"glanced/backends/budget"
	"glanced/catalog"
	"glanced/catalog/fields"
)

// What an answer that shows images may hold of their records, bytes: one image of the
// largest that the catalog takes in at least, and so many at most that pages of ordinary
// images are not cut.
const (
	leastRecords = 384 << 10
	mostRecords  = 2 << 20
)

// imageText is about what an image without long properties takes in an answer, bytes.
const imageText = 1 << 10

// recordsWithin is how long an answer waits for memory.
const recordsWithin = 10 * time.Second

// retryAfter is when who was refused for lack of room, or of an answer about their token,
// is to come again, seconds.
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
	a.image(&img)
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
	first  bool // no member of the object at hand is out
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

// image adds one as Glance shows it, its keys in order: its own fields, and the custom
// properties beside them. A property of a field's name never takes the field's place.
func (a *answer) image(img *catalog.Image) {
	properties := make([]string, 0, len(img.Properties))
	for name := range img.Properties {
		if !fields.IsBase(name) {
			properties = append(properties, name)
		}
	}
	slices.Sort(properties)
	property := func() {
		name := properties[0]
		properties = properties[1:]
		a.member(name, fields.Value{Kind: fields.Text, Text: img.Properties[name]})
	}
	a.buf.Grow(imageText)
	a.text("{")
	a.first = true
	for _, f := range fields.Shown() {
		for len(properties) > 0 && properties[0] < f.Name {
			property()
		}
		if v := f.Of(img); !v.Null || f.Showing == fields.Always {
			a.member(f.Name, v)
		}
	}
	for len(properties) > 0 {
		property()
	}
	a.text("}")
}

// member adds one to an object.
func (a *answer) member(name string, v fields.Value) {
	if a.failed {
		return
	}
	if !a.first {
		a.buf.WriteByte(',')
	}
	a.first = false
	b := append(fields.AppendText(a.buf.AvailableBuffer(), name), ':')
	a.buf.Write(v.AppendJSON(b))
	if a.buf.Len() >= answerPiece {
		a.flush()
	}
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
