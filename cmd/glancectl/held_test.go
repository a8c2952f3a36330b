package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestHeldImagesAreListedWithWhatStandsOnThem(t *testing.T) {
	g := newServer(t)
	if out := g.do("image", "held", "-f", "json").ok(); strings.TrimSpace(out) != "[]" {
		t.Errorf("of none: %q", out)
	}
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/admin/held" {
			return false
		}
		io.WriteString(w, `{"images":[{"id":"p1","name":"base","owner":"lab","size":1048576,"deleted_at":"2026-12-01T10:00:00Z",
			"children":[{"id":"c1","name":null,"owner":"other","status":"active"}]}]}`)
		return true
	}
	out := g.do("image", "held").ok()
	for _, want := range []string{"p1", "base", "lab", "1.0 MiB", "c1 of other"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}
