package testbed

import "testing"

func TestWhatMayNotSkip(t *testing.T) {
	for _, c := range []struct {
		setting string
		ci      bool
		server  string
		want    bool
	}{
		{"", false, "", false}, {"", false, "s3", false}, {"", true, "", true}, {"", true, "s3", true},
		{"1", false, "", true}, {"1", false, "s3", true},
		{"s3,swift", false, "s3", true}, {"s3, swift", false, "swift", true}, {"s3,swift", true, "rbd", false},
		{"s3", true, "", false}, {"s3,1", false, "rbd", true}, {"s3,", false, "", false}, {"s", false, "s3", false},
	} {
		if got := mustRun(c.setting, c.ci, c.server); got != c.want {
			t.Errorf("GLANCED_MUST_RUN=%q, CI %v, server %q: %v", c.setting, c.ci, c.server, got)
		}
	}
}
