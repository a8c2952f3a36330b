package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
)

var errCaller = errors.New("the client hung up")

func newFrame(ctx context.Context, size int64) *Frame {
	f := New(ctx, size, func(err error) error { return fmt.Errorf("write k into s: %w", err) })
	return &f
}

// write writes n bytes, of which a driver takes all.
func (f *Frame) write(n int) error {
	_, err := f.Write(make([]byte, n), func(p []byte) error { f.N += int64(len(p)); return nil })
	return err
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestWhatMayBeWritten(t *testing.T) {
	f := newFrame(t.Context(), 10)
	wantErr(t, "within the size", f.write(6), nil)
	_, err := f.Commit(t.Context(), nil)
	wantErr(t, "commit of a part", err, backends.ErrShort)
	wantErr(t, "the rest", f.write(4), nil)
	wantErr(t, "beyond the size", f.write(1), backends.ErrLong)
	wantErr(t, "after an error", f.write(0), backends.ErrLong)
	_, err = f.Commit(t.Context(), nil)
	wantErr(t, "commit after an error", err, backends.ErrLong)

	ctx, leave := context.WithCancelCause(t.Context())
	f = newFrame(ctx, -1)
	_, err = f.Write([]byte("x"), func([]byte) error { leave(errCaller); return errors.New("a connection was closed") })
	wantErr(t, "who is left says why", err, errCaller)
	f = newFrame(ctx, -1)
	wantErr(t, "an upload that has ended", f.write(1), errCaller)
}

func TestAnObjectIsPublishedOnce(t *testing.T) {
	f := newFrame(t.Context(), -1)
	published, fails := 0, true
	publish := func(context.Context) (backends.Location, error) {
		published++
		if fails {
			return backends.Location{}, backends.ErrUnavailable
		}
		return backends.Location{URL: "here"}, nil
	}
	ended, end := context.WithCancelCause(t.Context())
	end(errCaller)
	_, err := f.Commit(ended, publish)
	wantErr(t, "a caller who has left", err, errCaller)
	_, err = f.Commit(t.Context(), publish)
	wantErr(t, "the first", err, backends.ErrUnavailable)
	wantErr(t, "a byte more", f.write(1), errCommitted)
	f = newFrame(t.Context(), -1)
	_, err = f.Commit(t.Context(), publish)
	wantErr(t, "the first", err, backends.ErrUnavailable)
	if f.Ctx.Err() != nil {
		t.Error("what is sent was ended, though it can be committed again")
	}
	fails, published = false, 0
	for range 3 {
		loc, err := f.Commit(t.Context(), publish)
		wantErr(t, "again", err, nil)
		if loc.URL != "here" {
			t.Errorf("it is at %q", loc.URL)
		}
	}
	if published != 1 {
		t.Errorf("published %d times", published)
	}
	f.Abort()
	_, err = f.Commit(t.Context(), publish)
	wantErr(t, "after Abort", err, ErrAborted)
	wantErr(t, "after Abort", f.write(1), ErrAborted)
	wantErr(t, "after Abort", context.Cause(f.Ctx), context.Canceled) // of the Commit
	f = newFrame(t.Context(), -1)
	f.Abort()
	wantErr(t, "what is sent when it is aborted", context.Cause(f.Ctx), ErrAborted)
}

func TestOnceTellsWhoseItIs(t *testing.T) {
	errOccupied := errors.New("there is one")
	for name, c := range map[string]struct {
		before, after, fails error
		want                 error
		published            int
	}{
		"nothing was there":      {before: backends.ErrNotFound, published: 1},
		"ours, by a lost answer": {},
		"another's":              {before: backends.ErrExists, want: backends.ErrExists},
		"nobody knows":           {before: backends.ErrUnavailable, want: backends.ErrUnavailable},
		"ours came in between":   {before: backends.ErrNotFound, fails: errOccupied, published: 1},
		"another came first":     {before: backends.ErrNotFound, fails: errOccupied, after: backends.ErrExists, want: backends.ErrExists, published: 1},
		"it cannot be published": {before: backends.ErrNotFound, fails: backends.ErrFull, want: backends.ErrFull, published: 1},
	} {
		published := 0
		mine := func(context.Context) (string, error) {
			if published == 0 {
				return "before", c.before
			}
			return "after", c.after
		}
		got, err := Once(t.Context(), mine, func(context.Context) error { published++; return c.fails }, errOccupied)
		wantErr(t, name, err, c.want)
		if want := map[int]string{0: "before", 1: "after"}[c.published]; err == nil && got != want || published != c.published {
			t.Errorf("%s: %q, published %d times", name, got, published)
		}
	}
}

// What publishes is done with when Once returns, also for a caller who has left: only then
// is it known what there is to remove. A server that never answers is left in the end.
func TestWhatPublishesOutlastsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, takes := range []time.Duration{leaveTime / 2, 2 * leaveTime} {
			ctx, leave := context.WithCancelCause(t.Context())
			mine := func(ctx context.Context) (string, error) { return "", cmp.Or(context.Cause(ctx), backends.ErrNotFound) }
			published := false
			began := time.Now()
			_, err := Once(ctx, mine, func(ctx context.Context) error {
				leave(errCaller)
				select {
				case <-time.After(takes):
					published = true
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}, errors.New("there is one"))
			wantErr(t, "a caller who has left", err, errCaller)
			if took := time.Since(began); published != (takes < leaveTime) || took > leaveTime {
				t.Errorf("what takes %v was published: %v; after %v", takes, published, took)
			}
		}
	})
}
