package formats

import (
	"context"
	"fmt"
	"strings"
)

// Detect says which of drivers an image that begins with head is of: exactly one
// name, or "raw" when none recognises it. Two that recognise it is a polyglot,
// refused with ErrFormat, as in OpenStack's format inspector.
func Detect(drivers []Driver, head []byte) (string, error) {
	var names []string
	for _, d := range drivers {
		if d.Probe != nil && d.Probe(head) {
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
func ReadHead(ctx context.Context, src Source) ([]byte, error) {
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
