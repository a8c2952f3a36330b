package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	maxJSON      = 1 << 20 // bytes of a JSON body; 128 tags and 128 properties of 4 KiB are half of it
	maxJSONDepth = 32
	// maxJSONValues bounds what a body is in memory, which may be twenty times its text.
	maxJSONValues = 1 << 14
	// bodyFactor is how many times its text a body takes in memory, read and decoded.
	bodyFactor = 4
	// A client that is refused while it still sends mostly looks for the answer
	// only when it has sent all; closing under it would lose the answer. So what
	// it still sends is thrown away, up to these bounds.
	drainBytes = 64 << 20
	drainTime  = 10 * time.Second
)

// countedBody knows whether the client's body was touched, and read to its end.
type countedBody struct {
	io.ReadCloser
	rc             *http.ResponseController
	touched, ended bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	b.touched = true
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.ended = true
	}
	if err == io.EOF {
		b.rc.SetReadDeadline(time.Time{}) // what follows the body has its own time
	}
	return n, err
}

// answerUnread answers e to a client that may still be sending its body, and
// then closes the connection if it was.
func answerUnread(w http.ResponseWriter, r *http.Request, body *countedBody, e *httpError) {
	waiting := r.Header.Get("Expect") != "" && !body.touched // for our 100 Continue: has sent nothing
	if waiting {
		// net/http sees our body around its own, so it cannot know this, and would
		// wait for what will not come.
		w.Header().Set("Connection", "close")
	}
	if r.ContentLength == 0 || body.ended || waiting {
		answerError(w, e)
		return
	}
	rc := http.NewResponseController(w)
	if rc.EnableFullDuplex() != nil { // not a real HTTP/1 connection
		answerError(w, e)
		return
	}
	w.Header().Set("Connection", "close")
	answerError(w, e)
	if rc.Flush() != nil || rc.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return
	}
	io.CopyN(io.Discard, body, drainBytes)
}

// readJSON reads the body as one JSON value: nil, bool, json.Number, string,
// []any or map[string]any. A key that stands twice in an object is refused: which
// one counts differs between readers, and what was checked might not be what is
// stored.
func readJSON(r *http.Request) (any, error) {
	text, err := io.ReadAll(io.LimitReader(r.Body, maxJSON+1))
	switch {
	case err != nil:
		return nil, fail(http.StatusBadRequest, "The body could not be read to its end.")
	case len(text) > maxJSON:
		return nil, fail(http.StatusRequestEntityTooLarge, "The body is larger than %d bytes.", maxJSON)
	case len(text) == 0:
		return nil, fail(http.StatusBadRequest, "Body expected in request.")
	case !utf8.Valid(text):
		return nil, fail(http.StatusBadRequest, "Malformed JSON in request body: it is not valid UTF-8.")
	}
	d := &decoder{Decoder: json.NewDecoder(bytes.NewReader(text)), values: maxJSONValues}
	d.UseNumber()
	v, err := d.value(maxJSONDepth)
	if err != nil {
		var known *httpError
		if errors.As(err, &known) {
			return nil, known
		}
		return nil, fail(http.StatusBadRequest, "Malformed JSON in request body.")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fail(http.StatusBadRequest, "Malformed JSON in request body.")
	}
	return v, nil
}

// decoder reads so many values and no more.
type decoder struct {
	*json.Decoder
	values int
}

func (d *decoder) value(depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	if d.values--; d.values < 0 {
		return nil, fail(http.StatusRequestEntityTooLarge, "The JSON in the request body has more than %d values.", maxJSONValues)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == 0 {
		return nil, fail(http.StatusBadRequest, "The JSON in the request body is nested deeper than %d.", maxJSONDepth)
	}
	list, object := []any{}, map[string]any{}
	for d.More() {
		var key string
		if open == '{' {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key = k.(string) // the decoder lets nothing else stand here
			if _, twice := object[key]; twice {
				return nil, fail(http.StatusBadRequest, "The JSON in the request body has the key %s twice.", shorten(strconv.Quote(key)))
			}
		}
		v, err := d.value(depth - 1)
		if err != nil {
			return nil, err
		}
		if open == '{' {
			object[key] = v
		} else {
			list = append(list, v)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if open == '{' {
		return object, nil
	}
	return list, nil
}

// answerJSON writes v, which must be made of what encoding/json cannot fail on.
func answerJSON(w http.ResponseWriter, status int, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	text := bytes.TrimRight(b.Bytes(), "\n")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	w.Write(text) // a client gone now is no one's error
	return nil
}
