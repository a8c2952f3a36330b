package formats

import (
	"context"
	"fmt"
	"strings"

	"glanced/backends/stored"
)

// Detect says which of drivers an image that begins with head is of: exactly one
// name, or "raw" when none recognises it. Two that recognise it is a polyglot,
// refused with ErrFormat, as in OpenStack's format inspector.
func Detect(drivers []Driver, head []byte) (string, error) { return detect(drivers, head, nil) }

// DetectSource is Detect for who has all of an image: its end is looked at too.
func DetectSource(ctx context.Context, drivers []Driver, src stored.Bytes) (string, error) {
	head, err := ReadHead(ctx, src)
	if err != nil {
		return "", err
	}
	tail := make([]byte, min(TailLen, src.Size()))
	if err := src.ReadAt(ctx, tail, src.Size()-int64(len(tail))); err != nil {
		return "", fmt.Errorf("read the last %d bytes: %w", len(tail), err)
	}
	return detect(drivers, head, tail)
}

func detect(drivers []Driver, head, tail []byte) (string, error) {
	var names []string
	for _, d := range drivers {
		if d.Probe != nil && d.Probe(head) || d.ProbeTail != nil && d.ProbeTail(tail) {
			names = append(names, d.Name)
		}
	}
	switch len(names) {
	case 0:
		return "raw", nil
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("%w: the content is %s at once", ErrFormat, strings.Join(names, " and "))
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
