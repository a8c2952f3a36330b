package ctl

import (
	"net/http"

	"glanced/catalog/access"
)

// importInfo is GET /v2/info/import: no methods, which is what clients look at
// before they try one.
func (s *Server) importInfo(w http.ResponseWriter, r *http.Request, _ Identity) error {
	return answerJSON(w, http.StatusOK, map[string]any{"import-methods": map[string]any{
		"description": "Import methods available.", "type": "array", "value": []string{}}})
}

// storeInfo is one store as Glance shows it: truths are the string "true".
type storeInfo struct {
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	Default     string `json:"default,omitempty"`
	ReadOnly    string `json:"read-only,omitempty"`
}

// storesInfo is GET /v2/info/stores.
func (s *Server) storesInfo(w http.ResponseWriter, r *http.Request, _ Identity) error {
	list := []storeInfo{}
	for _, st := range s.catalog.Stores() {
		info := storeInfo{ID: st.ID, Description: st.Description}
		if st.Default {
			info.Default = "true"
		}
		if st.ReadOnly || st.Foreign {
			info.ReadOnly = "true"
		}
		list = append(list, info)
	}
	return answerJSON(w, http.StatusOK, map[string]any{"stores": list})
}

// resource is one quota and its use; sizes are in MiB, use rounded up.
type resource struct {
	Limit int64 `json:"limit"`
	Usage int64 `json:"usage"`
}

// usageInfo is GET /v2/info/usage, of the caller's project: the quotas that are
// enforced. A limit of 0 is none, shown as Keystone's -1.
func (s *Server) usageInfo(w http.ResponseWriter, r *http.Request, who Identity) error {
	q, u, _, err := s.catalog.Quota(r.Context(), who.Project)
	if err != nil {
		return err
	}
	unlimited := func(limit int64) int64 {
		if limit == 0 {
			return -1
		}
		return limit
	}
	return answerJSON(w, http.StatusOK, map[string]any{"usage": map[string]resource{
		"image_count_total": {unlimited(q.ImageCountTotal), u.ImageCount},
		"image_size_total":  {unlimited(q.ImageSizeTotal), mebibytes(u.ImageBytes)},
	}})
}

func mebibytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// listMembers is GET /v2/images/{id}/members. No image has members yet; only
// shared ones could.
func (s *Server) listMembers(w http.ResponseWriter, r *http.Request, who Identity) error {
	img, err := s.find(r, who, access.ListMembers)
	if err != nil {
		return err
	}
	if img.Visibility != "shared" {
		return fail(http.StatusForbidden, "Not allowed to list members for image %s: Only shared images have members.", img.ID)
	}
	return answerJSON(w, http.StatusOK, map[string]any{"members": []string{}, "schema": "/v2/schemas/members"})
}
