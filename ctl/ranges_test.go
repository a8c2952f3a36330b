package ctl

import (
	"net/http/httptest"
	"testing"
)

func TestRanges(t *testing.T) {
	const size = 100
	for _, c := range []struct {
		rang, contentRange string
		off, n             int64
		partial            bool
		status             int // of the error; 0 = none
	}{
		{"", "", 0, 100, false, 0},
		{"bytes=0-0", "", 0, 1, true, 0},
		{"bytes=10-19", "", 10, 10, true, 0},
		{"bytes=90-", "", 90, 10, true, 0},
		{"bytes=90-1000", "", 90, 10, true, 0},
		{"bytes=-4", "", 96, 4, true, 0},
		{"bytes=-1000", "", 0, 100, true, 0},
		{"bytes=0-99999999999999999999", "", 0, 100, true, 0},
		{"bytes=99999999999999999999-", "", 0, 0, false, 416},
		{"bytes=100-", "", 0, 0, false, 416},
		{"bytes=-0", "", 0, 0, false, 416},
		{"bytes=5-4", "", 0, 0, false, 416},
		{"bytes=+5-6", "", 0, 0, false, 416},
		{"bytes=5--6", "", 0, 0, false, 416},
		{"bytes=-", "", 0, 0, false, 416},
		{"bytes=", "", 0, 0, false, 416},
		{"items=0-1", "", 0, 0, false, 416},
		{"bytes=0-1,4-5", "", 0, 0, false, 400},
		{"", "bytes 10-19/100", 10, 10, true, 0},
		{"", "bytes 10-19/*", 10, 10, true, 0},
		{"", "bytes 10-19/99", 0, 0, false, 416},
		{"", "bytes 100-101/100", 0, 0, false, 416},
		{"", "10-19", 0, 0, false, 416},
		{"bytes=1-2", "bytes 10-19/100", 1, 2, true, 0},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Range", c.rang)
		r.Header.Set("Content-Range", c.contentRange)
		got, partial, err := requestedRange(r, size)
		status := 0
		if err != nil {
			status = explain(err).status
		}
		if status != c.status || err == nil && (got != byteRange{c.off, c.n} || partial != c.partial) {
			t.Errorf("Range %q, Content-Range %q: %+v %v %v, want %+v", c.rang, c.contentRange, got, partial, err, c)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Range", "bytes=0-")
	if _, _, err := requestedRange(r, 0); err == nil || explain(err).status != 416 {
		t.Errorf("a range of nothing: %v", err)
	}
}
