package swift

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"glanced/backends"
)

// tokenHeader says by which claim an object was written.
const tokenHeader = "X-Object-Meta-Glanced-Claim"

// maxSegments bounds what a large object has, in a listing or in a manifest: their
// numbers have five digits.
const maxSegments = 99_999

// found is what a server says of an object.
type found struct {
	size    int64
	version string
	token   string // "" = not written by this package
	kind    kind
	parts   []part // what is read, in order
	// What is deleted with the object, beside what lies under the key: names of segments,
	// or for a dynamic large object how they begin.
	segments          []part
	container, prefix string
}

type kind int

const (
	plainObject kind = iota
	dynamicObject
	staticObject
)

// part is an object, all of whose bytes are some of those of the object that is read.
type part struct {
	container, name string
	size            int64
	etag            string // without quotes
}

// look asks what lies at p. A container that is not there is ErrUnavailable and not
// ErrNotFound: what is not found is forgotten.
func look(ctx context.Context, p place) (found, error) {
	doing := "look at " + p.name
	h, _, err := p.ask(ctx, doing, request{method: http.MethodHead, query: "multipart-manifest=get"})
	if errors.Is(err, backends.ErrNotFound) {
		if _, gone := p.in(p.container, "").about(ctx, "look at the container"); gone != nil && p.tenant == "" {
			return found{}, noContainer(gone)
		}
	}
	if err != nil {
		return found{}, err
	}
	self := part{container: p.container, name: p.name, etag: bareTag(h)}
	if self.size, err = strconv.ParseInt(h.Get("Content-Length"), 10, 64); err != nil || self.size < 0 || self.etag == "" {
		return found{}, fmt.Errorf("%s: %w: the server tells no ETag, or no size", doing, backends.ErrUnavailable)
	}
	f := found{token: h.Get(tokenHeader)}
	switch manifest := h.Get("X-Object-Manifest"); {
	case manifest != "":
		err = f.dynamic(ctx, p, manifest, self)
	case strings.EqualFold(h.Get("X-Static-Large-Object"), "true"):
		err = f.static(ctx, p)
	default:
		f.parts, f.size, f.version = []part{self}, self.size, self.etag
	}
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", doing, err)
	}
	return f, nil
}

func bareTag(h http.Header) string { return strings.Trim(h.Get("Etag"), `"`) }

// dynamic completes f by the listing that a manifest speaks of (Swift, "Large Object
// Support": the objects whose names begin so, in the order of their names).
func (f *found) dynamic(ctx context.Context, p place, manifest string, self part) error {
	text, err := url.PathUnescape(manifest)
	container, prefix, ok := strings.Cut(text, "/")
	if err != nil || !ok || prefix == "" || checkContainer(container) != nil {
		return fmt.Errorf("%w: its manifest names no segments", backends.ErrChanged)
	}
	f.kind, f.container, f.prefix = dynamicObject, container, prefix
	if f.segments, err = list(ctx, p.in(container, ""), prefix); err != nil {
		return err
	}
	f.parts = f.segments
	f.version = "dlo:" + digest(append([]part{self}, f.segments...)) + ":" + manifestOf(container, prefix)
	return f.sum()
}

func manifestOf(container, prefix string) string {
	return url.PathEscape(container) + "/" + escapeName(prefix)
}

// static completes f by the manifest of a static large object. One whose segments are
// ranges, large objects or bytes within the manifest is left to the server to put
// together, and read as one object.
func (f *found) static(ctx context.Context, p place) error {
	_, text, err := p.ask(ctx, "read the manifest", request{method: http.MethodGet, query: "multipart-manifest=get"})
	if err != nil {
		return err
	}
	var entries []struct {
		Name  string `json:"name"` // /container/object
		Hash  string `json:"hash"`
		Bytes int64  `json:"bytes"`
		Range string `json:"range"`
		Sub   bool   `json:"sub_slo"`
		Data  string `json:"data"`
	}
	if err := json.Unmarshal(text, &entries); err != nil || len(entries) > maxSegments {
		return fmt.Errorf("%w: its manifest cannot be read", backends.ErrUnavailable)
	}
	f.kind = staticObject
	whole := false
	for _, e := range entries {
		container, name, _ := strings.Cut(strings.TrimPrefix(e.Name, "/"), "/")
		whole = whole || e.Range != "" || e.Sub || e.Data != "" || container == "" || name == "" || e.Hash == ""
		if container != "" && name != "" {
			f.segments = append(f.segments, part{container, name, e.Bytes, e.Hash})
		}
	}
	f.parts = f.segments
	sum := digest(f.segments)
	if whole {
		h, _, err := p.ask(ctx, "look at it", request{method: http.MethodHead})
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("%w: the server tells no size", backends.ErrUnavailable)
		}
		f.parts = []part{{p.container, p.name, size, bareTag(h)}}
		sum = digest(f.parts)
	}
	f.version = "slo:" + sum
	return f.sum()
}

// sum adds up the sizes.
func (f *found) sum() error {
	for _, s := range f.parts {
		if s.size < 0 || s.size > math.MaxInt64-f.size {
			return fmt.Errorf("%w: a segment's size cannot be", backends.ErrUnavailable)
		}
		f.size += s.size
	}
	return nil
}

func digest(parts []part) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%q %q %d %q\n", p.container, p.name, p.size, p.etag)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// list is the objects of a container whose names begin with prefix.
func list(ctx context.Context, p place, prefix string) (all []part, err error) {
	marker := ""
	for {
		query := url.Values{"format": {"json"}, "prefix": {prefix}}
		if marker != "" {
			query.Set("marker", marker)
		}
		_, text, err := p.ask(ctx, "list the segments", request{method: http.MethodGet, query: query.Encode()})
		if errors.Is(err, backends.ErrNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var page []struct {
			Name  string `json:"name"`
			Hash  string `json:"hash"`
			Bytes int64  `json:"bytes"`
		}
		if len(text) > 0 {
			if err := json.Unmarshal(text, &page); err != nil {
				return nil, fmt.Errorf("%w: the listing cannot be read", backends.ErrUnavailable)
			}
		}
		if len(page) == 0 {
			return all, nil
		}
		for _, o := range page {
			if !strings.HasPrefix(o.Name, prefix) || o.Name <= marker || o.Hash == "" {
				return nil, fmt.Errorf("%w: the listing cannot be read", backends.ErrUnavailable)
			}
			marker = o.Name
			all = append(all, part{p.container, o.Name, o.Bytes, o.Hash})
		}
		if len(all) > maxSegments {
			return nil, fmt.Errorf("there are more than %d segments", maxSegments)
		}
	}
}

// find looks at the object of a location, and checks that it is what the location
// records.
func (s *Store) find(ctx context.Context, loc backends.Location) (place, found, error) {
	if ctx.Err() != nil {
		return place{}, found{}, context.Cause(ctx)
	}
	p, err := s.target(ctx, loc)
	if err != nil {
		return p, found{}, err
	}
	f, err := look(ctx, p)
	if err == nil {
		err = loc.Check(f.size, f.version)
	}
	return p, f, err
}

// Stat implements backends.Store.
func (s *Store) Stat(ctx context.Context, loc backends.Location) (backends.Location, error) {
	_, f, err := s.find(ctx, loc)
	if err != nil {
		return backends.Location{}, s.wrap("look at an object of", err)
	}
	loc.Size, loc.Version = f.size, f.version
	return loc, nil
}
