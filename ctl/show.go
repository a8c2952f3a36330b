package ctl

import (
	"errors"
	"net/http"

	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/fields"
)

func imagePath(id string) string { return fields.Path(id) }

// find gets the image of the request for who, who wants to do v with it.
func (s *Server) find(r *http.Request, who Identity, v access.Verb) (catalog.Image, error) {
	id := r.PathValue("id")
	img, err := s.catalog.Get(r.Context(), id)
	if errors.Is(err, catalog.ErrNotFound) {
		return img, noImage(shorten(id))
	}
	if err != nil {
		return img, err
	}
	return img, allow(who, v, img)
}

// showImage is GET /v2/images/{id}.
func (s *Server) showImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	h, err := s.holdRecords(r.Context(), who, leastRecords, leastRecords)
	if err != nil {
		return err
	}
	defer h.Release()
	img, err := s.find(r, who, access.Show)
	if err != nil {
		return err
	}
	return s.answerImage(w, http.StatusOK, img, h)
}

// deleteImage is DELETE /v2/images/{id}.
func (s *Server) deleteImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	img, err := s.find(r, who, access.Delete)
	if err == nil {
		err = s.catalog.Delete(r.Context(), img.ID)
	}
	if err != nil && explain(err).status == http.StatusNotFound {
		return fail(http.StatusNotFound, "Failed to find image %s to delete", shorten(r.PathValue("id")))
	}
	if errors.Is(err, catalog.ErrProtected) {
		return fail(http.StatusForbidden, "Image %s is protected and cannot be deleted.", img.ID)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
