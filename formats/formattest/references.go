package formattest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/engine"
)

// reference checks that a name found in an image is reported, asked for, and
// otherwise refused.
func (s Suite) reference(t *testing.T, ref Reference) {
	image := ref.Image(t)
	info, err := s.Driver.Inspect(t.Context(), Memory(image))
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	if !slices.Contains(info.Refs, ref.Ref) {
		t.Errorf("Inspect reports %+v, want %+v", info.Refs, ref.Ref)
	}
	if !errors.Is(info.Refused, formats.ErrReference) {
		t.Errorf("Inspect says refused: %v, want ErrReference", info.Refused)
	}
	e := engine.New(engine.Options{})
	defer e.Close()
	open := func(o engine.OpenOptions) error {
		d, err := e.Open(t.Context(), s.Driver, Memory(image), o)
		if err == nil {
			d.Close()
		}
		return err
	}
	if err := open(engine.OpenOptions{}); !errors.Is(err, formats.ErrReference) {
		t.Errorf("Open with nothing supplied: %v, want ErrReference", err)
	}

	refused := errors.New("whoever supplies refuses")
	var asked []formats.Ref
	err = open(engine.OpenOptions{
		Files: func(_ context.Context, r formats.Ref) (stored.Bytes, error) {
			asked = append(asked, r)
			return nil, refused
		},
		Parent: func(_ context.Context, r formats.Ref) (*engine.Disk, error) {
			asked = append(asked, r)
			return nil, refused
		},
	})
	switch {
	case err == nil:
		t.Error("Open succeeds though what it refers to is refused")
	case ref.Unresolvable:
		if !errors.Is(err, formats.ErrReference) && !errors.Is(err, formats.ErrUnsupported) {
			t.Errorf("Open of what cannot be resolved: %v, want ErrReference or ErrUnsupported", err)
		}
	default:
		if !errors.Is(err, refused) {
			t.Errorf("Open: %v, want the error of who supplies", err)
		}
		if !slices.Contains(asked, ref.Ref) {
			t.Errorf("asked for %+v, want %+v", asked, ref.Ref)
		}
	}

	err = open(engine.OpenOptions{
		Files:  func(context.Context, formats.Ref) (stored.Bytes, error) { return nil, nil },
		Parent: func(context.Context, formats.Ref) (*engine.Disk, error) { return nil, nil },
	})
	if err == nil {
		t.Error("Open succeeds though nothing was supplied")
	}
}
