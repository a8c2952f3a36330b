package formats

import (
	"context"
	"fmt"

	"glanced/backends/stored"
)

// Detect says which of drivers an image that begins with head (ProbeLen bytes of it,
// or all) is of: exactly one name, or "raw" when none recognises it. One that is of
// two, or that bears the sign of something else, is a polyglot, refused with
// ErrFormat, as OpenStack's format inspector does.
func Detect(drivers []Driver, head []byte) (string, error) {
	var names []string
	hybrid := false
	for _, d := range drivers {
		if d.Probe != nil && d.Probe(head) {
			names = append(names, d.Name)
			hybrid = hybrid || d.Hybrid
		}
	}
	if len(names) > 0 {
		names = second(names, hybrid, head)
	}
	return one(names)
}

// DetectTail goes on from what Detect has found, with the last TailLen bytes of the
// image, or all. What an image that is recognised by its tail alone begins like is
// its guest's: a partition table there is none of its own.
func DetectTail(drivers []Driver, found string, tail []byte) (string, error) {
	var names []string
	if found != "raw" {
		names = append(names, found)
	}
	for _, d := range drivers {
		if d.ProbeTail != nil && d.Name != found && d.ProbeTail(tail) {
			names = append(names, d.Name)
		}
	}
	return one(names)
}

// DetectSource is Detect and DetectTail for who has all of an image.
func DetectSource(ctx context.Context, drivers []Driver, src stored.Bytes) (string, error) {
	head, err := ReadHead(ctx, src)
	if err != nil {
		return "", err
	}
	found, err := Detect(drivers, head)
	if err != nil {
		return "", err
	}
	tail := make([]byte, min(TailLen, src.Size()))
	if err := src.ReadAt(ctx, tail, src.Size()-int64(len(tail))); err != nil {
		return "", fmt.Errorf("read the last %d bytes: %w", len(tail), err)
	}
	return DetectTail(drivers, found, tail)
}

// ReadHead reads what Detect wants to see of src.
func ReadHead(ctx context.Context, src stored.Bytes) ([]byte, error) {
	head := make([]byte, min(ProbeLen, src.Size()))
	if err := src.ReadAt(ctx, head, 0); err != nil {
		return nil, fmt.Errorf("read the first %d bytes: %w", len(head), err)
	}
	return head, nil
}

// Find is the driver called name.
func Find(drivers []Driver, name string) (Driver, bool) {
	for _, d := range drivers {
		if d.Name == name {
			return d, true
		}
	}
	return Driver{}, false
}
