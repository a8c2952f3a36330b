package backendtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"glanced/backends"
	"glanced/backends/stored"
)

// farPart is how many bytes of an upload go out in one request.
const farPart = 1 << 20

// Far is a store in memory that behaves as one behind a network: each call is so many
// requests, each request takes a round trip, may fail, or do its work and have its
// answer lost. Its objects can be changed underneath. Its bytes have no abilities.
// Safe for concurrent use; Delay, Fail and Lose are set before the first call, and
// are called concurrently.
//
// The requests: Begin one (is the key free?); Write one for each MiB that is full;
// Commit one for the rest and one to publish; each read one, which asks for the
// version that was opened; every other call one.
type Far struct {
	Delay func(Op) time.Duration // how long the round trip of a request takes, also of one that fails; nil = no time
	Fail  func(Op) error         // the request does not arrive; nil = all do
	Lose  func(Op) error         // it did its work, and its answer does not arrive; nil = all do

	id    string
	place *farPlace

	mu     sync.Mutex
	counts map[Op]Count
}

var _ backends.Store = (*Far)(nil)

// Count is what calls of one kind have cost.
type Count struct {
	Requests int64
	Bytes    int64 // of objects, in requests that did their work
}

// farPlace is what lies at the far end.
type farPlace struct {
	mu      sync.Mutex
	objects map[string]farObject // by key
	uploads map[string][][]byte  // parts, by claim
}

type farObject struct {
	content []byte // not changed, only replaced
	version string
	claim   string // of the upload that made it
}

func newFarObject(content []byte, claim string) farObject {
	sum := sha256.Sum256(content)
	return farObject{content, hex.EncodeToString(sum[:]), claim}
}

// NewFar makes a store with nothing in it.
func NewFar(id string) *Far {
	return &Far{id: id, place: &farPlace{objects: map[string]farObject{}, uploads: map[string][][]byte{}}}
}

// Again is one more store on the same place, without f's delays and failures.
func (f *Far) Again() *Far { return &Far{id: f.id, place: f.place} }

// Copy is a store at a place of its own, with copies of what f's holds.
func (f *Far) Copy() *Far {
	c := NewFar(f.id)
	f.place.mu.Lock()
	defer f.place.mu.Unlock()
	for key, o := range f.place.objects {
		c.place.objects[key] = newFarObject(o.content, "")
	}
	return c
}

// List names the objects, and the uploads that were neither committed nor aborted.
func (f *Far) List() []string {
	f.place.mu.Lock()
	defer f.place.mu.Unlock()
	var names []string
	for key := range f.place.objects {
		names = append(names, key)
	}
	for claim := range f.place.uploads {
		names = append(names, "upload "+claim)
	}
	slices.Sort(names)
	return names
}

// Replace puts other content in the place of the object under key, or an object where
// there was none; Remove takes it away. Neither is a request.
func (f *Far) Replace(key string, content []byte) {
	f.place.mu.Lock()
	defer f.place.mu.Unlock()
	f.place.objects[key] = newFarObject(bytes.Clone(content), "")
}

// Truncate cuts the object under key off after n bytes.
func (f *Far) Truncate(key string, n int64) {
	f.place.mu.Lock()
	content := f.place.objects[key].content[:n]
	f.place.mu.Unlock()
	f.Replace(key, content)
}

// Remove takes the object under key away.
func (f *Far) Remove(key string) {
	f.place.mu.Lock()
	defer f.place.mu.Unlock()
	delete(f.place.objects, key)
}

// Count is what calls of one kind have cost so far.
func (f *Far) Count(op Op) Count {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// request makes one request: work is done at the far end, under its lock, and says
// how many bytes of an object it moved. No lock is held while the request travels.
func (f *Far) request(ctx context.Context, op Op, work func(*farPlace) (moved int, err error)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.count(op, Count{Requests: 1})
	if f.Delay != nil {
		trip := time.NewTimer(f.Delay(op))
		defer trip.Stop()
		select {
		case <-trip.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if f.Fail != nil {
		if err := f.Fail(op); err != nil {
			return fmt.Errorf("far store: %s: %w", op, err)
		}
	}
	f.place.mu.Lock()
	moved, err := work(f.place)
	f.place.mu.Unlock()
	f.count(op, Count{Bytes: int64(moved)})
	if err == nil && f.Lose != nil {
		err = f.Lose(op)
	}
	if err != nil {
		return fmt.Errorf("far store: %s: %w", op, err)
	}
	return nil
}

func (f *Far) count(op Op, more Count) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[Op]Count{}
	}
	c := f.counts[op]
	f.counts[op] = Count{c.Requests + more.Requests, c.Bytes + more.Bytes}
}

const farURL = "far://place/"

func (f *Far) locate(key string, o farObject) backends.Location {
	return backends.Location{Store: f.id, URL: farURL + url.PathEscape(key), Size: int64(len(o.content)), Version: o.version}
}

func (f *Far) key(loc backends.Location) (string, error) {
	escaped, ok := strings.CutPrefix(loc.URL, farURL)
	key, err := url.PathUnescape(escaped)
	if !ok || err != nil || loc.Store != f.id || strings.Contains(escaped, "/") || !farKey(key) {
		return "", fmt.Errorf("far store: %w", backends.ErrBadLocation)
	}
	return key, nil
}

func farKey(key string) bool {
	return key != "" && len(key) <= 1024 && key[0] != '.' && !strings.ContainsAny(key, "/\x00")
}

// find is the object at loc, checked against it.
func (p *farPlace) find(key string, loc backends.Location) (farObject, error) {
	o, ok := p.objects[key]
	if !ok {
		return o, backends.ErrNotFound
	}
	return o, loc.Check(int64(len(o.content)), o.version)
}

// Begin implements backends.Store. The far end learns of the upload with its first
// part.
func (f *Far) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if !farKey(key) {
		return nil, fmt.Errorf("far store: %w: key %q", backends.ErrBadLocation, key)
	}
	err := f.request(ctx, OpBegin, func(p *farPlace) (int, error) {
		if _, ok := p.objects[key]; ok {
			return 0, backends.ErrExists
		}
		return 0, nil
	})
	if err != nil {
		return nil, err
	}
	return &farWriter{f: f, ctx: ctx, key: key, size: size, claim: rand.Text() + ":" + url.PathEscape(key)}, nil
}

// Abandon implements backends.Store.
func (f *Far) Abandon(ctx context.Context, c backends.Claim) error {
	id, escaped, ok := strings.Cut(string(c), ":")
	key, err := url.PathUnescape(escaped)
	if !ok || err != nil || len(id) < 26 || !farKey(key) {
		return fmt.Errorf("far store: %w: not a claim", backends.ErrBadLocation)
	}
	return f.request(ctx, OpAbandon, func(p *farPlace) (int, error) {
		delete(p.uploads, string(c))
		if p.objects[key].claim == string(c) {
			delete(p.objects, key)
		}
		return 0, nil
	})
}

// Stat implements backends.Store.
func (f *Far) Stat(ctx context.Context, loc backends.Location) (full backends.Location, err error) {
	key, err := f.key(loc)
	if err != nil {
		return full, err
	}
	err = f.request(ctx, OpStat, func(p *farPlace) (int, error) {
		o, err := p.find(key, loc)
		full = f.locate(key, o)
		return 0, err
	})
	if err != nil {
		return backends.Location{}, err
	}
	return full, nil
}

// Open implements backends.Store.
func (f *Far) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	key, err := f.key(loc)
	if err != nil {
		return nil, err
	}
	b := &farBytes{f: f, key: key}
	err = f.request(ctx, OpOpen, func(p *farPlace) (int, error) {
		o, err := p.find(key, loc)
		b.loc = f.locate(key, o)
		return 0, err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Delete implements backends.Store.
func (f *Far) Delete(ctx context.Context, loc backends.Location) error {
	key, err := f.key(loc)
	if err != nil {
		return err
	}
	return f.request(ctx, OpDelete, func(p *farPlace) (int, error) {
		_, err := p.find(key, loc)
		if err == nil {
			delete(p.objects, key)
		}
		return 0, err
	})
}

// Usage implements backends.Store.
func (f *Far) Usage(context.Context) (backends.Usage, error) {
	return backends.Usage{Total: -1, Free: -1}, nil
}

// Close implements backends.Store.
func (f *Far) Close() error { return nil }

// farWriter is an upload under way.
type farWriter struct {
	f     *Far
	ctx   context.Context
	key   string
	claim string
	size  int64
	n     int64
	part  []byte // not sent yet
	sent  int    // parts
	err   error
	loc   *backends.Location
}

func (w *farWriter) Claim() backends.Claim { return backends.Claim(w.claim) }

func (w *farWriter) Write(p []byte) (int, error) {
	switch {
	case w.err != nil:
	case w.loc != nil:
		w.err = errors.New("far store: it is committed")
	case w.size >= 0 && int64(len(p)) > w.size-w.n:
		w.err = fmt.Errorf("far store: %w", backends.ErrLong)
	default:
		w.part = append(w.part, p...)
		w.n += int64(len(p))
		for w.err == nil && len(w.part) >= farPart {
			w.err = w.send(w.ctx, farPart)
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// send sends the first n bytes of part. One that arrived, though nobody was told, may
// be sent again.
func (w *farWriter) send(ctx context.Context, n int) error {
	err := w.f.request(ctx, OpWrite, func(p *farPlace) (int, error) {
		p.uploads[w.claim] = append(p.uploads[w.claim][:w.sent], bytes.Clone(w.part[:n]))
		return n, nil
	})
	if err == nil {
		w.sent++
		w.part = w.part[:copy(w.part, w.part[n:])]
	}
	return err
}

func (w *farWriter) Commit(ctx context.Context) (backends.Location, error) {
	switch {
	case w.loc != nil:
		return *w.loc, nil
	case w.err != nil:
		return backends.Location{}, w.err
	case w.n < w.size:
		return backends.Location{}, fmt.Errorf("far store: %w", backends.ErrShort)
	}
	if len(w.part) > 0 {
		if err := w.send(ctx, len(w.part)); err != nil {
			return backends.Location{}, err
		}
	}
	var loc backends.Location
	err := w.f.request(ctx, OpCommit, func(p *farPlace) (int, error) {
		o, ok := p.objects[w.key]
		switch {
		case !ok && len(p.uploads[w.claim]) != w.sent:
			return 0, fmt.Errorf("%w: the upload was abandoned", backends.ErrNotFound)
		case !ok:
			o = newFarObject(bytes.Join(p.uploads[w.claim], nil), w.claim)
			p.objects[w.key] = o
			delete(p.uploads, w.claim)
		case o.claim != w.claim:
			return 0, backends.ErrExists
		}
		loc = w.f.locate(w.key, o)
		return 0, nil
	})
	if err != nil {
		return backends.Location{}, err
	}
	w.loc = &loc
	return loc, nil
}

func (w *farWriter) Abort(ctx context.Context) error {
	if w.err == nil {
		w.err = errors.New("far store: the upload was aborted")
	}
	w.loc = nil
	return w.f.Abandon(ctx, w.Claim())
}

// farBytes is an open object.
type farBytes struct {
	f   *Far
	key string
	loc backends.Location
}

func (b *farBytes) Size() int64 { return b.loc.Size }

func (b *farBytes) Identity() stored.Identity {
	return stored.NewIdentity(b.f.id, b.key, b.loc.Version)
}

func (b *farBytes) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(b, off, int64(len(p))); err != nil {
		return fmt.Errorf("far store: %w", err)
	}
	return b.f.request(ctx, OpRead, func(place *farPlace) (int, error) {
		o, err := place.find(b.key, b.loc)
		if err != nil {
			return 0, err
		}
		return copy(p, o.content[off:]), nil
	})
}

func (b *farBytes) Close() error { return nil }
