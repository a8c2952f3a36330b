package main

import "testing"

func TestTheDoorsShareWhatThereIs(t *testing.T) {
	for _, c := range []struct{ budget, files int64 }{{32 << 20, leastFiles}, {64 << 20, 256}, {512 << 20, 1024}, {64 << 30, 1 << 30}} {
		l := divided(c.budget, c.files, true)
		if near := divided(c.budget, c.files, false); near.fetches != 0 || near.clusters != l.clusters+l.fetches+l.index || l.fetches == 0 {
			t.Errorf("%+v without a cache, %+v with one", near, l)
		}
		if sum := l.clusters + l.tables + l.buffers + l.nbd*5/4 + l.mounts + l.fetches + l.index + l.http + l.uploads + l.records + l.shown + l.tokens; sum > l.runtime*9/10 || l.runtime >= c.budget {
			t.Errorf("of %d bytes, %+v are given out", c.budget, l)
		}
		if files := int64(2*l.nbdConns + 3*l.httpConns + 2*l.adminConns + l.mountFiles); files > c.files*7/8 {
			t.Errorf("of %d files, %d are given out", c.files, files)
		}
		if l.nbdConns < 20 || l.httpConns < 10 || l.adminConns < 4 || l.mountFiles < 20 {
			t.Errorf("with %d files: %+v", c.files, l)
		}
	}
}
