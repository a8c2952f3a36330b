package ctl

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"glanced/catalog"
	"glanced/catalog/access"
)

// timeLayout is how Glance writes times: UTC, whole seconds.
const timeLayout = "2006-01-02T15:04:05Z"

func imagePath(id string) string { return "/v2/images/" + url.PathEscape(id) }

// renderImage is img as Glance shows it: custom properties beside the rest.
// locations and direct_url are not shown: they name paths and credentials of the
// stores (OSSN-0065, OSSN-0090), and Glance's defaults hide them too.
func renderImage(img catalog.Image) map[string]any {
	out := map[string]any{}
	for k, v := range img.Properties {
		out[k] = v
	}
	tags := img.Tags
	if tags == nil {
		tags = []string{}
	}
	for k, v := range map[string]any{
		"id":               img.ID,
		"name":             img.Name,
		"status":           img.Status,
		"disk_format":      img.DiskFormat,
		"container_format": img.ContainerFormat,
		"visibility":       img.Visibility,
		"owner":            img.Owner,
		"protected":        img.Protected,
		"os_hidden":        img.Hidden,
		"min_disk":         img.MinDisk,
		"min_ram":          img.MinRAM,
		"size":             img.Size,
		"virtual_size":     img.VirtualSize,
		"checksum":         img.Checksum,
		"os_hash_algo":     img.HashAlgo,
		"os_hash_value":    img.HashValue,
		"created_at":       img.CreatedAt.UTC().Format(timeLayout),
		"updated_at":       img.UpdatedAt.UTC().Format(timeLayout),
		"tags":             tags,
		"self":             imagePath(img.ID),
		"file":             imagePath(img.ID) + "/file",
		"schema":           "/v2/schemas/image",
	} {
		out[k] = v
	}
	if img.DiskError != "" {
		// Under the prefix that Glance keeps for what the service says itself.
		out["os_glance_disk_error"] = img.DiskError
	}
	if img.Parent != nil {
		out["os_glance_backing_image"] = img.Parent.ID
	}
	if len(img.Snapshots) > 0 {
		names := make([]string, len(img.Snapshots))
		for i, s := range img.Snapshots {
			names[i] = s.Name
		}
		// A list in JSON, as text: the values of an image's properties are text.
		if text, err := json.Marshal(names); err == nil {
			out["os_glance_snapshots"] = string(text)
		}
	}
	if ids := storesOf(img); len(ids) > 0 && img.Status != catalog.Deactivated {
		out["stores"] = strings.Join(ids, ",")
	}
	return out
}

func storesOf(img catalog.Image) []string {
	var ids []string
	for _, l := range img.Locations {
		ids = append(ids, l.Store)
	}
	return ids
}

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
