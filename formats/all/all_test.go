package all_test

import (
	"errors"
	"testing"

	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/formattest"
)

// disc begins like an ISO 9660 disc, with head in the part that the standard
// leaves to others.
func disc(head string) []byte {
	d := make([]byte, 64<<10)
	copy(d, head)
	copy(d[32<<10:], "\x01CD001\x01")
	return d
}

func TestADiscThatBootsFromAStickIsADisc(t *testing.T) {
	d := disc("\xeb\x63\x90")
	copy(d[510:], "\x55\xaaEFI PART")
	if name, err := formats.DetectSource(t.Context(), all.Drivers(), formattest.Memory(d)); err != nil || name != "iso" {
		t.Errorf("found %q (%v)", name, err)
	}
}

func TestTwoFormatsAtOnceAreRefused(t *testing.T) {
	for _, head := range []string{"QFI\xfb", "KDMV", "QED\x00"} {
		if name, err := formats.DetectSource(t.Context(), all.Drivers(), formattest.Memory(disc(head))); !errors.Is(err, formats.ErrFormat) {
			t.Errorf("a disc that begins with %q is %q (%v)", head, name, err)
		}
	}
}

func TestEveryDriverHasItsOwnName(t *testing.T) {
	seen := make(map[string]bool)
	for _, d := range all.Drivers() {
		if seen[d.Name] || d.Inspect == nil || d.Open == nil {
			t.Errorf("driver %q is there twice or incomplete", d.Name)
		}
		seen[d.Name] = true
	}
}
