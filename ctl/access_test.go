package ctl_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"glanced/ctl"
)

func TestStaticTokens(t *testing.T) {
	tokens, err := ctl.NewStaticTokens([]ctl.StaticToken{
		{Token: "a", User: "u", Project: "p", Roles: []string{"member"}},
		{Token: "b", User: "root", Project: "q", Roles: []string{"ADMIN"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{"a": "u p false", "b": "root q true", "": "", "c": "", "aa": ""} {
		who, err := tokens.Authenticate(t.Context(), http.Header{"X-Auth-Token": {token}})
		if want == "" {
			if !errors.Is(err, ctl.ErrUnauthorized) {
				t.Errorf("%q is %v, %v", token, who, err)
			}
		} else if got := fmt.Sprint(who.User, " ", who.Project, " ", who.IsAdmin()); got != want || err != nil {
			t.Errorf("%q is %s, %v, want %s", token, got, err, want)
		}
	}
	member := []string{"member"}
	for _, bad := range [][]ctl.StaticToken{
		{{Project: "p", Roles: member}},
		{{Token: "t", Roles: member}},
		{{Token: "t", Project: "p"}},
		{{Token: "t", Project: "p", Roles: []string{"creator"}}},
		{{Token: "t", Project: "p", Roles: member}, {Token: "o", Project: "p", Roles: member}, {Token: "t", Project: "q", Roles: member}},
	} {
		if _, err := ctl.NewStaticTokens(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if who, err := (ctl.Everyone{Identity: ctl.Identity{User: "x"}}).Authenticate(context.Background(), nil); err != nil || who.User != "x" {
		t.Error(who, err)
	}
}

func TestStrangersLearnNothing(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	for _, path := range []string{"/v2", "/v2/", "/v2/images", "/v2/images/" + id, "/v2/images/nothing", "/v2/nothing", "/v2.9/images"} {
		for _, token := range []string{"", "wrong"} {
			a := w.do("GET", path, nil, "X-Auth-Token", token)
			w.refused(a, 401)
			if a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", path)
			}
		}
	}
}

// What each caller may do with the image of another project, by its visibility.
func TestOtherProjects(t *testing.T) {
	const (
		patch = "application/openstack-images-v2.1-json-patch"
		alt   = "alt-token"
	)
	w := newWorld(t, options{})
	for visibility, want := range map[string]int{"private": 404, "shared": 404, "community": 200, "public": 200} {
		t.Run(visibility, func(t *testing.T) {
			w.t = t
			id := w.create(map[string]any{"name": visibility})
			w.upload(id, []byte("data"))
			if a := w.do("PATCH", "/v2/images/"+id, strings.NewReader(`[{"op":"replace","path":"/visibility","value":"`+visibility+`"}]`),
				"Content-Type", patch, "X-Auth-Token", "admin-token"); a.StatusCode != 200 {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
			for _, path := range []string{"", "/file"} {
				if a := w.do("GET", "/v2/images/"+id+path, nil, "X-Auth-Token", alt); a.StatusCode != want {
					t.Errorf("GET %s: %d %s", path, a.StatusCode, a.body)
				}
			}
			denied, words := 404, "image"
			if want == 200 {
				denied, words = 403, "You do not own this image"
			}
			for _, req := range [][2]string{{"DELETE", ""}, {"PUT", "/tags/x"}, {"DELETE", "/tags/x"}, {"POST", "/actions/deactivate"}, {"POST", "/actions/reactivate"}, {"GET", "/members"}} {
				w.refused(w.do(req[0], "/v2/images/"+id+req[1], nil, "X-Auth-Token", alt), denied, words)
			}
			w.refused(w.do("PATCH", "/v2/images/"+id, strings.NewReader(`[{"op":"replace","path":"/name","value":"mine"}]`), "Content-Type", patch, "X-Auth-Token", alt), denied, words)
			w.refused(w.put(id, strings.NewReader("mine"), "X-Auth-Token", alt), denied, words)
			list := w.do("GET", "/v2/images?visibility=all", nil, "X-Auth-Token", alt)
			if listed := strings.Contains(string(list.body), id); listed != (want == 200) {
				t.Errorf("listed: %v", listed)
			}
			if img := w.show(id); img["name"] != visibility || img["status"] != "active" {
				t.Errorf("it was changed: %v", img)
			}
		})
	}
	w.t = t
}

// A reader reads what its project owns, and changes nothing.
func TestAReaderChangesNothing(t *testing.T) {
	const patch = "application/openstack-images-v2.1-json-patch"
	w := newWorld(t, options{})
	id, empty := w.create(nil), w.create(nil)
	w.upload(id, []byte("data"))
	before := w.show(id)
	for _, path := range []string{"/v2/images/" + id, "/v2/images/" + id + "/file", "/v2/images/" + id + "/members", "/v2/images?owner=" + demoProject} {
		if a := w.do("GET", path, nil, "X-Auth-Token", "reader-token"); a.StatusCode != 200 {
			t.Errorf("GET %s: %d %s", path, a.StatusCode, a.body)
		}
	}
	for _, req := range []struct{ verb, path, body, kind string }{
		{"POST", "/v2/images", `{"name": "mine"}`, "application/json"},
		{"PATCH", "/v2/images/" + id, `[{"op":"replace","path":"/name","value":"mine"}]`, patch},
		{"PUT", "/v2/images/" + empty + "/file", "mine", "application/octet-stream"},
		{"PUT", "/v2/images/" + id + "/tags/x", "", ""},
		{"DELETE", "/v2/images/" + id + "/tags/x", "", ""},
		{"POST", "/v2/images/" + id + "/actions/deactivate", "", ""},
		{"POST", "/v2/images/" + id + "/actions/reactivate", "", ""},
		{"DELETE", "/v2/images/" + id, "", ""},
	} {
		w.refused(w.do(req.verb, req.path, strings.NewReader(req.body), "Content-Type", req.kind, "X-Auth-Token", "reader-token"), 403, "not authorized")
	}
	if after := w.show(id); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("it was changed: %v", after)
	}
	if img := w.show(empty); img["status"] != "queued" {
		t.Errorf("it was uploaded to: %v", img)
	}
}

func TestTheOwnerIsSetByAdminsOnly(t *testing.T) {
	w := newWorld(t, options{})
	w.refused(w.do("POST", "/v2/images", strings.NewReader(`{"owner": "`+altProject+`"}`)), 403)
	id := w.create(map[string]any{"owner": altProject}, "X-Auth-Token", "admin-token")
	if img := w.show(id); img["owner"] != altProject {
		t.Errorf("%v", img)
	}
	if a := w.do("GET", "/v2/images/"+id, nil, "X-Auth-Token", "alt-token"); a.StatusCode != 200 {
		t.Errorf("%d", a.StatusCode)
	}
}
