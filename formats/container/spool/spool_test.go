package spool_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/container/spool"
)

// What a spool refuses is told in the words of formats and containers: the doors know
// those.
func TestASpoolSpeaksAsContainersDo(t *testing.T) {
	d, err := spool.New(t.TempDir(), 1<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n int) func(context.Context, io.Writer) error {
		return func(_ context.Context, w io.Writer) error {
			piece := make([]byte, n)
			for i := range piece {
				piece[i] = 1
			}
			_, err := w.Write(piece)
			return err
		}
	}
	open, err := d.For("p", "open")(t.Context(), fill(700<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for name, c := range map[string]struct {
		fill func(context.Context, io.Writer) error
		want error
	}{
		"larger than all of it":  {fill(2 << 20), formats.ErrLimit},
		"larger than the rest":   {fill(700 << 10), container.ErrFull},
		"removed meanwhile":      {func(context.Context, io.Writer) error { return d.Remove("a") }, formats.ErrClosed},
		"failing for its reason": {func(context.Context, io.Writer) error { return formats.ErrCorrupt }, formats.ErrCorrupt},
	} {
		if _, err := d.For("p", "a")(t.Context(), c.fill); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if keys := d.Keys(); len(keys) != 1 || keys[0] != "open" {
		t.Errorf("kept: %v", keys)
	}
}
