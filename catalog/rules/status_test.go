package rules_test

import (
	"testing"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

func TestTheStatusMachineIsWhole(t *testing.T) {
	all := []records.Status{records.Queued, records.Saving, records.Uploading, records.Importing, records.Active,
		records.Deactivated, records.Killed, records.Deleted, records.PendingDelete}
	if len(rules.Moves) != len(all) {
		t.Errorf("%d statuses have moves, there are %d", len(rules.Moves), len(all))
	}
	for _, s := range all {
		to, ok := rules.Moves[s]
		if !ok {
			t.Errorf("%s has no row", s)
		}
		for _, s2 := range to {
			if _, ok := rules.Moves[s2]; !ok {
				t.Errorf("%s becomes %q, which is no status", s, s2)
			}
		}
		if s != records.Deleted && len(to) == 0 {
			t.Errorf("%s is a dead end", s)
		}
	}
}
