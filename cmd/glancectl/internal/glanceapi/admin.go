package glanceapi

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Status is what GET /admin/status tells of a running glanced.
type Status struct {
	Version       string    `json:"version"`
	Node          string    `json:"node"`
	StartedAt     time.Time `json:"started_at"`
	UptimeSeconds int64     `json:"uptime_seconds"`
	DataDir       string    `json:"data_dir"`
	Mountpoint    string    `json:"mountpoint"`
	Listeners     []struct {
		Kind    string `json:"kind"` // http, control, nbd
		Address string `json:"address"`
	} `json:"listeners"`
	Images map[string]int64 `json:"images"` // how many by status
	Stores []Store          `json:"stores"`
	Memory struct {
		BudgetBytes int64 `json:"budget_bytes"`
		HeapBytes   int64 `json:"heap_bytes"`
	} `json:"memory"`
}

// Store is one configured store.
type Store struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Default     bool   `json:"default"`
	ReadOnly    bool   `json:"read_only"`
	Weight      int    `json:"weight"`
	TotalBytes  int64  `json:"total_bytes"` // -1 = unknown, as FreeBytes
	FreeBytes   int64  `json:"free_bytes"`
}

// StoreCheck is what was tried in a store.
type StoreCheck struct {
	ID    string `json:"id"`
	OK    bool   `json:"ok"`
	Steps []struct {
		Name  string `json:"name"`  // write, read, delete
		Error string `json:"error"` // "" = it works
	} `json:"steps"`
}

// Session is one NBD client at work.
type Session struct {
	Export    string    `json:"export"`
	Peer      string    `json:"peer"`
	Since     time.Time `json:"since"`
	BytesRead int64     `json:"bytes_read"`
}

// Mount is one FUSE mount of the daemon.
type Mount struct {
	Mountpoint string `json:"mountpoint"`
}

// Allowance is one limited resource of a project.
type Allowance struct {
	Limit int64 `json:"limit"` // 0 = no limit
	Usage int64 `json:"usage"`
}

// Quota is a project's limits and what it uses.
type Quota struct {
	Project         string    `json:"project"`
	Own             bool      `json:"own"` // set for this project; otherwise the default holds
	ImageCountTotal Allowance `json:"image_count_total"`
	ImageSizeTotal  Allowance `json:"image_size_total"` // MiB
}

// QuotaLimits are the limits to set; nil stays as it is.
type QuotaLimits struct {
	ImageCountTotal *int64 `json:"image_count_total,omitempty"`
	ImageSizeTotal  *int64 `json:"image_size_total,omitempty"` // MiB
}

// Status asks the daemon how it is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, request{method: http.MethodGet, path: "/admin/status"}, nil, &s)
	return s, err
}

// CheckStore has the daemon try a store.
func (c *Client) CheckStore(ctx context.Context, id string) (StoreCheck, error) {
	var check StoreCheck
	err := c.call(ctx, request{method: http.MethodPost, path: "/admin/stores/" + url.PathEscape(id) + "/check"}, nil, &check)
	return check, err
}

// Sessions lists the NBD clients at work.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	var answer struct {
		Sessions []Session `json:"sessions"`
	}
	err := c.call(ctx, request{method: http.MethodGet, path: "/admin/exports"}, nil, &answer)
	return answer.Sessions, err
}

// Mounts lists the daemon's FUSE mounts.
func (c *Client) Mounts(ctx context.Context) ([]Mount, error) {
	var answer struct {
		Mounts []Mount `json:"mounts"`
	}
	err := c.call(ctx, request{method: http.MethodGet, path: "/admin/mounts"}, nil, &answer)
	return answer.Mounts, err
}

// HeldImage is a deleted image whose bytes are still there, because others stand on it.
type HeldImage struct {
	ID        string      `json:"id"`
	Name      *string     `json:"name"`
	Owner     string      `json:"owner"`
	Size      *int64      `json:"size"` // bytes
	DeletedAt time.Time   `json:"deleted_at"`
	Children  []HeldChild `json:"children"`
}

// HeldChild is an image that stands on it.
type HeldChild struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
}

// Held lists those.
func (c *Client) Held(ctx context.Context) ([]HeldImage, error) {
	var answer struct {
		Images []HeldImage `json:"images"`
	}
	err := c.call(ctx, request{method: http.MethodGet, path: "/admin/held"}, nil, &answer)
	return answer.Images, err
}

func quotaPath(project string) string { return "/admin/quotas/" + url.PathEscape(project) }

// Quota is project's quota and usage.
func (c *Client) Quota(ctx context.Context, project string) (Quota, error) {
	var q Quota
	err := c.call(ctx, request{method: http.MethodGet, path: quotaPath(project)}, nil, &q)
	return q, err
}

// SetQuota gives project limits of its own.
func (c *Client) SetQuota(ctx context.Context, project string, l QuotaLimits) error {
	return c.call(ctx, request{method: http.MethodPut, path: quotaPath(project)}, l, nil)
}

// UnsetQuota lets the default limits hold for project again.
func (c *Client) UnsetQuota(ctx context.Context, project string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: quotaPath(project)}, nil, nil)
}
