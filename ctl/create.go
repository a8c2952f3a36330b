package ctl

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"glanced/catalog"
	"glanced/catalog/access"
)

// createImage is POST /v2/images: a record in status queued, without data. Names
// of four-byte characters are taken, which Glance refuses only for its database's
// sake.
func (s *Server) createImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Create); err != nil {
		return err
	}
	n := bodyRecords(r)
	hold, err := s.holdRecords(r.Context(), who, n, n)
	if err != nil {
		return err
	}
	defer hold.Release()
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	attributes, ok := body.(map[string]any)
	if !ok {
		return fail(http.StatusBadRequest, "Request body must be a JSON object.")
	}
	names := slices.Sorted(maps.Keys(attributes)) // so that of several mistakes the same one is told
	for _, name := range names {
		if err := settable(name); err != nil {
			return err
		}
	}
	img := catalog.Image{Visibility: access.Shared, Owner: who.Project}
	for _, name := range names {
		if err := check(name, attributes[name]); err != nil {
			return err
		}
		if err := assign(&img, who, name, attributes[name]); err != nil {
			return err
		}
	}
	img, err = s.catalog.Create(r.Context(), img)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Location", s.baseURL(r)+imagePath(img.ID))
	h.Set("OpenStack-image-store-ids", strings.Join(s.storeIDs(), ","))
	// OpenStack-image-import-methods is left out: there are none, and an empty
	// one would be read as one method without a name.
	return s.answerImage(w, http.StatusCreated, img, hold)
}

func (s *Server) storeIDs() []string {
	var ids []string
	for _, st := range s.catalog.Stores() {
		ids = append(ids, st.ID)
	}
	return ids
}
