package spool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"glanced/backends/spool"
	"glanced/backends/stored"
)

// getFor has who's key filled with n bytes.
func getFor(t *testing.T, d *spool.Dir, who, key string, n int) (stored.Bytes, error) {
	t.Helper()
	return d.GetFor(t.Context(), who, key, writes(bytes.Repeat([]byte("x"), n), 64<<10))
}

func TestEachHasItsShareOfTheSpool(t *testing.T) {
	d := newDir(t, t.TempDir(), 8*mib)
	d.ShareBytes(4 * mib)
	kept, err := getFor(t, d, "a", "a1", 2*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	other, err := getFor(t, d, "b", "b1", mib)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	for _, key := range []string{"a2", "a3"} { // its own a2 goes for its a3, and nobody else's
		b, err := getFor(t, d, "a", key, 3*mib/2)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		b.Close()
	}
	if b, err := d.GetFor(t.Context(), "b", "b1", notFilled(t)); err != nil {
		t.Errorf("what another has was evicted: %v", err)
	} else {
		b.Close()
	}
	if _, err := getFor(t, d, "a", "a4", 3*mib); !errors.Is(err, spool.ErrFull) {
		t.Errorf("beside what it has open, more than its share: %v", err)
	}
	if b, err := getFor(t, d, "b", "b2", 2*mib); err != nil {
		t.Errorf("another cannot fill: %v", err)
	} else {
		b.Close()
	}
	if _, err := getFor(t, d, "c", "c1", 5*mib); !errors.Is(err, spool.ErrLimit) {
		t.Errorf("a file larger than its share: %v", err)
	}
}

// One who fills for ever leaves a place for others.
func TestFillsOfOneLeaveAPlaceForOthers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDir(t, dir, 8*mib) // of two fills at a time
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 3)
		for _, key := range []string{"bomb1", "bomb2", "bomb3"} {
			go func() {
				_, err := d.GetFor(ctx, "greedy", key, func(ctx context.Context, _ io.Writer) error {
					<-ctx.Done()
					return context.Cause(ctx)
				})
				ended <- err
			}()
		}
		synctest.Wait()
		b, err := d.GetFor(t.Context(), "other", "disk", writes([]byte("data"), 4))
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		end()
		for range 3 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("a fill that all had left: %v", err)
			}
		}
	})
}
