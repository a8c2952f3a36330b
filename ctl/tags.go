package ctl

import (
	"errors"
	"net/http"
	"slices"

	"glanced/catalog"
	"glanced/catalog/access"
)

// addTag is PUT /v2/images/{id}/tags/{tag}; a tag that is there already is fine.
func (s *Server) addTag(w http.ResponseWriter, r *http.Request, who Identity) error {
	tag := r.PathValue("tag")
	if err := check("tags", []any{tag}); err != nil {
		return err
	}
	return s.changeTags(w, r, who, func(img *catalog.Image) error {
		if slices.Contains(img.Tags, tag) {
			return errUnchanged
		}
		return setTags(img, append([]string{tag}, img.Tags...))
	})
}

// removeTag is DELETE /v2/images/{id}/tags/{tag}; 404 when the image has no such tag.
func (s *Server) removeTag(w http.ResponseWriter, r *http.Request, who Identity) error {
	tag := r.PathValue("tag")
	return s.changeTags(w, r, who, func(img *catalog.Image) error {
		at := slices.Index(img.Tags, tag)
		if at < 0 {
			return fail(http.StatusNotFound, "The image has no tag %s.", shorten(tag))
		}
		img.Tags = slices.Delete(img.Tags, at, at+1)
		return nil
	})
}

// errUnchanged ends an Update that has nothing to write.
var errUnchanged = errors.New("nothing to change")

func (s *Server) changeTags(w http.ResponseWriter, r *http.Request, who Identity, change func(*catalog.Image) error) error {
	img, err := s.find(r, who, access.Modify)
	if err != nil {
		return err
	}
	_, err = s.catalog.Update(r.Context(), img.ID, func(img *catalog.Image) error {
		if err := allow(who, access.Modify, *img); err != nil {
			return err
		}
		return change(img)
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
