package ctl

import (
	"net/http"

	"glanced/catalog"
	"glanced/catalog/access"
)

// setLocation is PUT /admin/images/{id}/location with {"url": …, "store": …}: a queued
// image's data is what lies at the URL, as one of the stores reads it; "store" may be
// left out. Only administrators may, on the control socket: the daemon asks whatever
// server the URL names, from where it stands.
func (s *Server) setLocation(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	fields, ok := body.(map[string]any)
	if !ok {
		return fail(http.StatusBadRequest, "Request body must be a JSON object.")
	}
	var o catalog.RegisterOptions
	for name, value := range fields {
		text, ok := value.(string)
		if !ok {
			return fail(http.StatusBadRequest, "%s must be text.", shorten(name))
		}
		switch name {
		case "url":
			o.URL = text
		case "store":
			o.Store = text
		default:
			return fail(http.StatusBadRequest, "There is no field %s: there are url and store.", shorten(name))
		}
	}
	if o.URL == "" {
		return fail(http.StatusBadRequest, "The url of the data is missing.")
	}
	img, err := s.find(r, who, access.Upload)
	if err == nil {
		err = s.catalog.Register(r.Context(), img.ID, o)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
