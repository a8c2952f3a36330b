package ctl

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"glanced/catalog"
	"glanced/catalog/access"
)

// upload is PUT /v2/images/{id}/file. All that can be refused without the bytes
// is refused before the first read of the body, which is what sends 100 Continue
// to the clients that wait for it.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, who Identity) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/octet-stream" {
		return fail(http.StatusUnsupportedMediaType, "The request media type %s is not supported by this server.", shorten(r.Header.Get("Content-Type")))
	}
	size, err := announcedSize(r)
	if err != nil {
		return err
	}
	store := r.Header.Get("X-Image-Meta-Store")
	if store != "" && !s.hasStore(store) {
		return fail(http.StatusBadRequest, "Store for identifier %s not found", shorten(store))
	}
	img, err := s.find(r, who, access.Upload)
	if err != nil {
		return err
	}
	var missing []string
	if img.DiskFormat == nil {
		missing = append(missing, "disk_format")
	}
	if img.ContainerFormat == nil {
		missing = append(missing, "container_format")
	}
	if len(missing) > 0 {
		return fail(http.StatusBadRequest, "Properties %s must be set prior to saving data.", strings.Join(missing, ", "))
	}
	if r.ContentLength == 0 && store == "" {
		err = s.catalog.Activate(r.Context(), img.ID)
	} else {
		body := &patientBody{Reader: r.Body, rc: http.NewResponseController(w), stall: s.stall}
		err = s.catalog.Upload(r.Context(), img.ID, body, catalog.UploadOptions{Size: size, Store: store, Project: who.Project})
		if errors.Is(err, catalog.ErrUploads) {
			return explain(err).with("Retry-After", retryAfter)
		}
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) hasStore(id string) bool {
	for _, st := range s.catalog.Stores() {
		if st.ID == id {
			return true
		}
	}
	return false
}

// announcedSize is the body's length in bytes by Content-Length or, of a chunked
// body, by x-openstack-image-size; -1 if the client says neither.
func announcedSize(r *http.Request) (int64, error) {
	text := r.Header.Get("X-Openstack-Image-Size")
	if text == "" {
		return r.ContentLength, nil
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 {
		return 0, fail(http.StatusBadRequest, "The x-openstack-image-size header must be a number of bytes, not '%s'.", shorten(text))
	}
	if r.ContentLength >= 0 && r.ContentLength != size {
		return 0, fail(http.StatusBadRequest, "The x-openstack-image-size header says %d bytes, the Content-Length %d.", size, r.ContentLength)
	}
	return size, nil
}
