package ctl

import (
	"net/http"
	"time"

	"glanced/catalog"
	"glanced/catalog/access"
)

// HeldStatus is GET /admin/held: the deleted images whose bytes are still there, because
// other images stand on them; by their ids.
type HeldStatus struct {
	Images []HeldImage `json:"images"`
}

// HeldImage is one of them. Size is null where it is not known.
type HeldImage struct {
	ID        string      `json:"id"`
	Name      *string     `json:"name"`
	Owner     string      `json:"owner"` // whose quota it counts against
	Size      *int64      `json:"size"`  // bytes
	DeletedAt time.Time   `json:"deleted_at"`
	Children  []HeldChild `json:"children"`
}

// HeldChild is an image that stands on it.
type HeldChild struct {
	ID     string         `json:"id"`
	Name   *string        `json:"name"`
	Owner  string         `json:"owner"`
	Status catalog.Status `json:"status"` // pending_delete: it is held itself
}

func (s *Server) showHeld(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	held, err := s.catalog.HeldImages(r.Context())
	if err != nil {
		return err
	}
	status := HeldStatus{Images: []HeldImage{}}
	for _, h := range held {
		img := HeldImage{ID: h.Image.ID, Name: h.Image.Name, Owner: h.Image.Owner, Size: h.Image.Size, DeletedAt: h.Image.UpdatedAt, Children: []HeldChild{}}
		for _, c := range h.Children {
			img.Children = append(img.Children, HeldChild{ID: c.ID, Name: c.Name, Owner: c.Owner, Status: c.Status})
		}
		status.Images = append(status.Images, img)
	}
	return answerJSON(w, http.StatusOK, status)
}
