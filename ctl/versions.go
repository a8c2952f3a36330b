package ctl

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// versions is what is advertised, newest first. A minor version is a promise that
// its routes are there: 2.3 deactivate, 2.5 community and shared images, 2.7
// os_hash_*, 2.8 stores, 2.9 os_hidden are. The next would be 2.10 (import into
// several stores). Clients choose by the highest: glanceclient uses v2 if any 2.x
// is listed, asks for v2.12 before an image's tasks and for v2.8 before stores;
// openstacksdk and gophercloud look at the major version only. 2.2 (metadefs) and
// 2.6 (import) are in the list although their routes are not, because the list
// is read as a range; both are found out by other means, by their 404 and by
// the OpenStack-image-import-methods header and GET /v2/info/import.
var versions = []string{"v2.9", "v2.8", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"}

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

type version struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Links  []link `json:"links"`
}

type versionList struct {
	Versions []version `json:"versions"`
}

// listVersions answers the list to anyone: 300 where a path has no version that
// we know, as Glance does, and 200 at /versions.
func (s *Server) listVersions(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.answerVersions(w, r, status)
	}
}

// listVersionsInside is GET /v2 with a token: clients discover there, when their
// catalog's endpoint ends in /v2.
func (s *Server) listVersionsInside(w http.ResponseWriter, r *http.Request, _ Identity) error {
	return s.answerVersions(w, r, http.StatusOK)
}

func (s *Server) answerVersions(w http.ResponseWriter, r *http.Request, status int) error {
	self := []link{{"self", s.baseURL(r) + "/v2/"}}
	list := versionList{}
	for i, id := range versions {
		v := version{id, "SUPPORTED", self}
		if i == 0 {
			v.Status = "CURRENT"
		}
		list.Versions = append(list.Versions, v)
	}
	return answerJSON(w, status, list)
}

// baseURL is how the client reached us: scheme and host, without a path.
func (s *Server) baseURL(r *http.Request) string {
	u := url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	if s.trustForwarded {
		if p := r.Header.Get("X-Forwarded-Proto"); p == "http" || p == "https" {
			u.Scheme = p
		}
		if h := r.Header.Get("X-Forwarded-Host"); h != "" {
			u.Host = h
		}
	}
	return u.String()
}

// acceptVersion is how a client may name the version without a path.
const acceptVersion = "application/vnd.openstack.images-"

var versionPath = regexp.MustCompile(`^/(v2\.[0-9]+)(/.*)?$`)

// negotiate puts the version that the client asks for, in the Accept header or
// as a minor version in the path, into the path as /v2. What it does not know it
// leaves alone; the mux then answers 300.
func negotiate(r *http.Request) *http.Request {
	path, raw := r.URL.Path, r.URL.RawPath
	if want, ok := strings.CutPrefix(r.Header.Get("Accept"), acceptVersion); ok && !strings.HasPrefix(path, "/v2/") {
		if want != "v2" && !slices.Contains(versions, want) {
			return r
		}
		path = "/v2" + path
		if raw != "" {
			raw = "/v2" + raw
		}
	} else if m := versionPath.FindStringSubmatch(path); m != nil && slices.Contains(versions, m[1]) {
		path = "/v2" + path[1+len(m[1]):]
		if raw != "" {
			raw = "/v2" + strings.TrimPrefix(raw, "/"+m[1])
		}
	} else {
		return r
	}
	u := *r.URL
	u.Path, u.RawPath = path, raw
	r2 := *r
	r2.URL = &u
	return &r2
}
