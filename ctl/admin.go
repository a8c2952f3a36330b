package ctl

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"glanced/catalog"
	"glanced/catalog/access"
)

// Status is GET /admin/status: how the daemon is. Whoever fills it makes empty
// lists, not nil ones, which would be null on the wire; so too below.
type Status struct {
	Version       string           `json:"version"`
	Node          string           `json:"node"`
	StartedAt     time.Time        `json:"started_at"`
	UptimeSeconds int64            `json:"uptime_seconds"`
	DataDir       string           `json:"data_dir"`
	Mountpoint    string           `json:"mountpoint"` // "" = none
	Listeners     []ListenerStatus `json:"listeners"`
	Images        map[string]int64 `json:"images"` // by status
	Stores        []StoreStatus    `json:"stores"`
	Memory        MemoryStatus     `json:"memory"`
}

// ListenerStatus is one address that is served; Kind is http, control or nbd.
type ListenerStatus struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
}

// StoreStatus is one store; bytes are -1 where the store cannot tell.
type StoreStatus struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Default     bool   `json:"default"`
	ReadOnly    bool   `json:"read_only"`
	Weight      int    `json:"weight"`
	TotalBytes  int64  `json:"total_bytes"`
	FreeBytes   int64  `json:"free_bytes"`
}

// MemoryStatus is the memory budget and what Go's heap has of it.
type MemoryStatus struct {
	BudgetBytes int64 `json:"budget_bytes"`
	HeapBytes   int64 `json:"heap_bytes"`
}

// ExportStatus is GET /admin/exports: who reads over NBD now.
type ExportStatus struct {
	Sessions []ExportSession `json:"sessions"`
}

// ExportSession is one NBD connection.
type ExportSession struct {
	Export    string    `json:"export"`
	Peer      string    `json:"peer"`
	Since     time.Time `json:"since"`
	BytesRead int64     `json:"bytes_read"`
}

// MountStatus is GET /admin/mounts.
type MountStatus struct {
	Mounts []Mount `json:"mounts"`
}

// Mount is one FUSE mount of the images.
type Mount struct {
	Mountpoint string `json:"mountpoint"`
}

func (s *Server) adminStatus(w http.ResponseWriter, r *http.Request, who Identity) error {
	return answerAdmin(w, r, who, s.admin.Status)
}

func (s *Server) adminExports(w http.ResponseWriter, r *http.Request, who Identity) error {
	return answerAdmin(w, r, who, s.admin.Exports)
}

func (s *Server) adminMounts(w http.ResponseWriter, r *http.Request, who Identity) error {
	return answerAdmin(w, r, who, s.admin.Mounts)
}

func answerAdmin[T any](w http.ResponseWriter, r *http.Request, who Identity, ask func(context.Context) (T, error)) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	if ask == nil {
		return fail(http.StatusNotFound, "This daemon does not serve that.")
	}
	v, err := ask(r.Context())
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, v)
}

// QuotaStatus is one project's quota and use. Limit 0 is none; sizes are in MiB.
type QuotaStatus struct {
	Project         string   `json:"project"`
	Own             bool     `json:"own"` // false: the default limits apply
	ImageCountTotal resource `json:"image_count_total"`
	ImageSizeTotal  resource `json:"image_size_total"`
}

// showQuota is GET /admin/quotas/{project}.
func (s *Server) showQuota(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	return s.answerQuota(w, r)
}

func (s *Server) answerQuota(w http.ResponseWriter, r *http.Request) error {
	project := r.PathValue("project")
	q, u, own, err := s.catalog.Quota(r.Context(), project)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, QuotaStatus{
		Project: project, Own: own,
		ImageCountTotal: resource{q.ImageCountTotal, u.ImageCount},
		ImageSizeTotal:  resource{q.ImageSizeTotal, mebibytes(u.ImageBytes)},
	})
}

// setQuota is PUT /admin/quotas/{project} with {"image_count_total": 5,
// "image_size_total": 100}; what is left out stays as it is.
func (s *Server) setQuota(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	limits, ok := body.(map[string]any)
	if !ok {
		return fail(http.StatusBadRequest, "Request body must be a JSON object.")
	}
	q, _, _, err := s.catalog.Quota(r.Context(), r.PathValue("project"))
	if err != nil {
		return err
	}
	for name, value := range limits {
		n, ok := value.(json.Number)
		limit, err := n.Int64()
		if !ok || err != nil || limit < 0 {
			return fail(http.StatusBadRequest, "%s must be a whole number, 0 for no limit.", shorten(name))
		}
		switch name {
		case "image_count_total":
			q.ImageCountTotal = limit
		case "image_size_total":
			q.ImageSizeTotal = limit
		default:
			return fail(http.StatusBadRequest, "There is no quota named %s: there are image_count_total and image_size_total (MiB).", shorten(name))
		}
	}
	if err := s.catalog.SetQuota(r.Context(), r.PathValue("project"), &catalog.Quota{
		ImageCountTotal: q.ImageCountTotal, ImageSizeTotal: q.ImageSizeTotal}); err != nil {
		return err
	}
	return s.answerQuota(w, r)
}

// resetQuota is DELETE /admin/quotas/{project}: back to the default limits.
func (s *Server) resetQuota(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	if err := s.catalog.SetQuota(r.Context(), r.PathValue("project"), nil); err != nil {
		return err
	}
	return s.answerQuota(w, r)
}
