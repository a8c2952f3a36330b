package ctl

import (
	"net/http/httptest"
	"strings"
	"testing"

	"glanced/catalog"
)

// FuzzPatch runs any body through all of a patch but the database: it must never
// panic, and blame nobody but the client.
func FuzzPatch(f *testing.F) {
	for _, body := range []string{
		`[{"op":"replace","path":"/name","value":null},{"op":"add","path":"/a~1b","value":"x"}]`,
		`[{"op":"replace","path":"/tags","value":["x"]},{"op":"remove","path":"/p"},{"op":"add","path":"/kernel_id","value":null}]`,
		`[{"replace":"/min_ram","value":5},{"add":"/owner","value":"me"}]`,
		`[{"op":"replace","path":"/protected","value":true},{"op":"replace","path":"/visibility","value":"public"}]`,
		`{"op":"add"}`, `[[`, `[{"op":"add","path":"/x","value":{"a":[1e9,-1]}}]`,
	} {
		f.Add(body, false)
		f.Add(body, true)
	}
	s := New(Config{})
	f.Fuzz(func(t *testing.T, text string, old bool) {
		kind := patchV21
		if old {
			kind = patchV20
		}
		client := func(err error) {
			if status := explain(err).status; status < 400 || status >= 500 {
				t.Errorf("%q: %d %v", text, status, err)
			}
		}
		body, err := readJSON(httptest.NewRequest("PATCH", "/", strings.NewReader(text)))
		if err != nil {
			client(err)
			return
		}
		changes, err := s.parsePatch(body, kind)
		if err != nil {
			client(err)
			return
		}
		img := catalog.Image{ID: "i", Owner: "p", Status: catalog.Queued, Properties: map[string]string{"p": "v"}}
		for _, c := range changes {
			if err := s.apply(&img, Identity{Project: "p"}, c); err != nil {
				client(err)
			}
		}
		if img.ID != "i" || img.Owner != "p" || img.Status != catalog.Queued || img.Visibility == "public" {
			t.Errorf("%q made %+v", text, img)
		}
	})
}
