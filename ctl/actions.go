package ctl

import (
	"context"
	"errors"
	"net/http"

	"glanced/catalog"
	"glanced/catalog/access"
)

// deactivate is POST /v2/images/{id}/actions/deactivate: from now on nobody but
// an admin gets the image's data.
func (s *Server) deactivate(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.act(w, r, who, access.Deactivate, catalog.Deactivated, s.catalog.Deactivate)
}

// reactivate is POST /v2/images/{id}/actions/reactivate.
func (s *Server) reactivate(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.act(w, r, who, access.Reactivate, catalog.Active, s.catalog.Reactivate)
}

// act moves an image to a status. An image that has it already is a success, as
// in Glance; one that cannot get there is 403 there, and here.
func (s *Server) act(w http.ResponseWriter, r *http.Request, who Identity, v access.Verb, to catalog.Status, move func(context.Context, string) error) error {
	img, err := s.find(r, who, v)
	if err != nil {
		return err
	}
	if img.Status != to {
		err = move(r.Context(), img.ID)
	}
	var status *catalog.StatusError
	if errors.As(err, &status) && status.Have != to {
		return fail(http.StatusForbidden, "Not allowed to %s image in status '%s'", v, status.Have)
	}
	if err != nil && status == nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
