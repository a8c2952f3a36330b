package formattest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"glanced/formats"
)

// reference checks that a name found in an image is reported, asked for, and
// otherwise refused.
func (s Suite) reference(t *testing.T, ref Reference) {
	image := ref.Image(t)
	info, err := s.Driver.Inspect(t.Context(), []formats.Source{Memory(image)})
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	if !slices.Contains(info.Refs, ref.Ref) {
		t.Errorf("Inspect reports %+v, want %+v", info.Refs, ref.Ref)
	}
	if !errors.Is(info.Refused, formats.ErrReference) {
		t.Errorf("Inspect says refused: %v, want ErrReference", info.Refused)
	}
	if _, err := s.Driver.Open(t.Context(), []formats.Source{Memory(image)}, nil, formats.Options{}); !errors.Is(err, formats.ErrReference) {
		t.Errorf("Open without a resolver: %v, want ErrReference", err)
	}

	refused := errors.New("the resolver refuses")
	var asked []formats.Ref
	resolver := func(_ context.Context, r formats.Ref) (*formats.Disk, formats.Source, error) {
		asked = append(asked, r)
		return nil, nil, refused
	}
	_, err = s.Driver.Open(t.Context(), []formats.Source{Memory(image)}, resolver, formats.Options{})
	switch {
	case err == nil:
		t.Error("Open succeeds though the resolver refuses")
	case ref.Unresolvable:
		if !errors.Is(err, formats.ErrReference) && !errors.Is(err, formats.ErrUnsupported) {
			t.Errorf("Open of what cannot be resolved: %v, want ErrReference or ErrUnsupported", err)
		}
	default:
		if !errors.Is(err, refused) {
			t.Errorf("Open: %v, want the resolver's own error", err)
		}
		if !slices.Contains(asked, ref.Ref) {
			t.Errorf("the resolver was asked for %+v, want %+v", asked, ref.Ref)
		}
	}

	// What a resolver hands out of the wrong kind is an error, not a crash.
	empty := func(context.Context, formats.Ref) (*formats.Disk, formats.Source, error) { return nil, nil, nil }
	if l, err := s.Driver.Open(t.Context(), []formats.Source{Memory(image)}, empty, formats.Options{}); err == nil {
		l.Close()
		t.Error("Open succeeds though the resolver supplied nothing")
	}
}
