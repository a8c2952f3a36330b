package rules_test

import (
	"strings"
	"testing"

	"glanced/catalog/rules"
)

func TestIDs(t *testing.T) {
	const id = "0b5c2a4e-6f0d-4c57-9d6f-0d2f4d3f9c11"
	for s, want := range map[string]bool{
		id:                                     true,
		strings.ToUpper(id):                    true,
		"":                                     false,
		id + "\n":                              false,
		id + "0":                               false,
		"{" + id + "}":                         false,
		"urn:uuid:" + id:                       false,
		strings.ReplaceAll(id, "-", ""):        false,
		"0b5c2a4e6-f0d-4c57-9d6f-0d2f4d3f9c11": false,
		"0b5c2a4g-6f0d-4c57-9d6f-0d2f4d3f9c11": false,
		"../../../../../../../../etc/passwd..": false,
	} {
		if rules.IsID(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func TestLongValuesAreClipped(t *testing.T) {
	for s, want := range map[string]string{
		"":                      "",
		strings.Repeat("ố", 64): strings.Repeat("ố", 64),
		strings.Repeat("ố", 65): strings.Repeat("ố", 64) + "…",
	} {
		if got := rules.Clip(s); got != want {
			t.Errorf("%q becomes %q", s, got)
		}
	}
}
