package backends_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"glanced/backends"
)

// taker takes any bytes, and checks nothing.
type taker struct {
	bytes.Buffer
	err error
}

func (w *taker) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	return w.Buffer.Write(p)
}
func (w *taker) Claim() backends.Claim                                 { return "" }
func (w *taker) Commit(context.Context) (l backends.Location, e error) { return l, e }
func (w *taker) Abort(context.Context) error                           { return nil }

func TestCopyIsExact(t *testing.T) {
	gone, full := errors.New("the client is gone"), errors.New("no room")
	long := strings.Repeat("0123456789", 300_000)
	for name, c := range map[string]struct {
		body io.Reader
		size int64
		w    taker
		want error
	}{
		"as announced":                 {strings.NewReader(long), int64(len(long)), taker{}, nil},
		"of unknown size":              {iotest.HalfReader(strings.NewReader(long)), -1, taker{}, nil},
		"the end told with the bytes":  {iotest.DataErrReader(strings.NewReader(long)), int64(len(long)), taker{}, nil},
		"empty":                        {strings.NewReader(""), 0, taker{}, nil},
		"short":                        {strings.NewReader(long), int64(len(long)) + 1, taker{}, backends.ErrShort},
		"short of all":                 {strings.NewReader(""), 1, taker{}, backends.ErrShort},
		"long":                         {strings.NewReader(long), int64(len(long)) - 1, taker{}, backends.ErrLong},
		"long by megabytes":            {strings.NewReader(long), 5, taker{}, backends.ErrLong},
		"failing":                      {io.MultiReader(strings.NewReader(long), iotest.ErrReader(gone)), -1, taker{}, gone},
		"cut off, which is no end":     {iotest.ErrReader(io.ErrUnexpectedEOF), -1, taker{}, io.ErrUnexpectedEOF},
		"into a store that takes none": {strings.NewReader(long), -1, taker{err: full}, full},
	} {
		n, err := backends.Copy(&c.w, c.body, c.size)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil && (n != int64(c.w.Len()) || c.w.Len() > 0 && c.w.String() != long) {
			t.Errorf("%s: %d bytes are told, %d came", name, n, c.w.Len())
		}
	}
}

func TestALocationKnowsItsObject(t *testing.T) {
	for _, c := range []struct {
		recorded backends.Location
		size     int64
		version  string
		fits     bool
	}{
		{backends.Location{Size: 5, Version: "v"}, 5, "v", true},
		{backends.Location{Size: 5, Version: "v"}, 6, "v", false},
		{backends.Location{Size: 5, Version: "v"}, 5, "w", false},
		{backends.Location{Size: 5, Version: "v"}, 5, "", false}, // it had one
		{backends.Location{Size: -1, Version: "v"}, 6, "v", true},
		{backends.Location{Size: -1, Version: "v"}, 6, "w", false},
		{backends.Location{Size: 5}, 5, "w", true},
		{backends.Location{Size: 0}, 5, "w", false},
		{backends.Location{Size: -1}, 5, "", true},
	} {
		err := c.recorded.Check(c.size, c.version)
		if (err == nil) != c.fits || err != nil && !errors.Is(err, backends.ErrChanged) {
			t.Errorf("%+v, found %d bytes of version %q: %v", c.recorded, c.size, c.version, err)
		}
	}
}

// wrapped is a store that wraps another one; partly one that works in part.
type wrapped struct{ backends.Store }

func (w wrapped) Unwrap() backends.Store { return w.Store }

type partly struct{ backends.Store }

func (partly) Degraded() error { return backends.ErrUnavailable }

func TestAnAbilityIsFoundThroughWrappers(t *testing.T) {
	if d, ok := backends.As[backends.Degrader](wrapped{wrapped{partly{}}}); !ok || d.Degraded() != backends.ErrUnavailable {
		t.Errorf("found: %v", ok)
	}
	if _, ok := backends.As[backends.Degrader](wrapped{wrapped{nil}}); ok {
		t.Error("found in a store that has it not")
	}
}
