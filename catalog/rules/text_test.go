package rules_test

import (
	"strings"
	"testing"

	"glanced/catalog/rules"
)

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
