package ctl

import (
	"context"
	"net/http"
	"time"

	"glanced/catalog"
	"glanced/catalog/access"
)

// heldRecords is what an answer that shows held images has of their records, bytes: a
// page of them and a page of what stands on one, each an image of the largest at least.
const heldRecords = 2 * leastRecords

// HeldImage is one of the deleted images whose bytes are still there, because other
// images stand on them. GET /admin/held answers {"images": […]} with those, by their ids,
// and in each, as "children", the HeldChildren that stand on it.
type HeldImage struct {
	ID        string    `json:"id"`
	Name      *string   `json:"name"`
	Owner     string    `json:"owner"` // whose quota it counts against
	Size      *int64    `json:"size"`  // bytes; null where it is not known
	DeletedAt time.Time `json:"deleted_at"`
}

// HeldChild is an image that stands on it.
type HeldChild struct {
	ID     string         `json:"id"`
	Name   *string        `json:"name"`
	Owner  string         `json:"owner"`
	Status catalog.Status `json:"status"` // pending_delete: it is held itself
}

// showHeld is GET /admin/held. However many images are held, and by however many, the
// answer is made as they are read.
func (s *Server) showHeld(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	h, err := s.holdRecords(r.Context(), who, heldRecords, heldRecords)
	if err != nil {
		return err
	}
	defer h.Release()
	a := s.newAnswer(w, http.StatusOK)
	if err := s.tellHeld(r.Context(), a); err != nil {
		if !a.begun {
			return err
		}
		s.breakOff(w.Header(), r, err)
	}
	a.end()
	return nil
}

// tellHeld adds all held images; it stops when the client is gone.
func (s *Server) tellHeld(ctx context.Context, a *answer) error {
	a.text(`{"images":[`)
	comma := ""
	for img, err := range s.catalog.HeldImages(ctx) {
		if err != nil || a.failed {
			return err
		}
		a.text(comma)
		comma = ","
		a.open(HeldImage{ID: img.ID, Name: img.Name, Owner: img.Owner, Size: img.Size, DeletedAt: img.UpdatedAt})
		a.text(`,"children":[`)
		if err := s.tellChildren(ctx, a, img.ID); err != nil {
			return err
		}
		a.text(`]}`)
	}
	a.text(`]}`)
	return nil
}

func (s *Server) tellChildren(ctx context.Context, a *answer, id string) error {
	comma := ""
	for img, err := range s.catalog.Children(ctx, id) {
		if err != nil || a.failed {
			return err
		}
		a.text(comma)
		comma = ","
		a.value(HeldChild{ID: img.ID, Name: img.Name, Owner: img.Owner, Status: img.Status})
	}
	return nil
}
