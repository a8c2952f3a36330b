package glanceapi

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Image is an image's record as the server sent it: the API's fields, which are those of
// catalog/fields, and beside them the custom properties. Numbers are json.Number.
type Image map[string]any

// String is a field's text, "" where it is null, missing or not text.
func (i Image) String(field string) string {
	s, _ := i[field].(string)
	return s
}

// ID is the image's id.
func (i Image) ID() string { return i.String("id") }

// Name is the image's name, "" where it has none.
func (i Image) Name() string { return i.String("name") }

// Int is a field's number; ok is false where it is null or missing.
func (i Image) Int(field string) (n int64, ok bool) {
	v, isNumber := i[field].(json.Number)
	if !isNumber {
		return 0, false
	}
	n, err := v.Int64()
	return n, err == nil
}

func imagePath(id string) string { return "/v2/images/" + url.PathEscape(id) }

// Create makes an image record of fields and properties (Images API: POST /v2/images).
func (c *Client) Create(ctx context.Context, fields map[string]any) (Image, error) {
	var img Image
	err := c.call(ctx, request{method: http.MethodPost, path: "/v2/images"}, fields, &img)
	return img, err
}

// Get is the image with id.
func (c *Client) Get(ctx context.Context, id string) (Image, error) {
	var img Image
	err := c.call(ctx, request{method: http.MethodGet, path: imagePath(id)}, nil, &img)
	return img, err
}

// pageSize is how many images are asked for at once; Glance gives at most 1000.
const pageSize = 500

// List yields the images that match query, limit at most (0 = all), page after page.
// The error, if there is one, comes last.
func (c *Client) List(ctx context.Context, query url.Values, limit int) iter.Seq2[Image, error] {
	return func(yield func(Image, error) bool) {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		for seen := 0; ; {
			page := pageSize
			if limit > 0 {
				page = min(page, limit-seen)
			}
			q.Set("limit", strconv.Itoa(page))
			var answer struct {
				Images []Image `json:"images"`
				Next   string  `json:"next"`
			}
			if err := c.call(ctx, request{method: http.MethodGet, path: "/v2/images", query: q}, nil, &answer); err != nil {
				yield(nil, err)
				return
			}
			for _, img := range answer.Images {
				if !yield(img, nil) {
					return
				}
				if seen++; limit > 0 && seen >= limit {
					return
				}
			}
			if answer.Next == "" || len(answer.Images) == 0 {
				return
			}
			// Only the query of the link is used: its path is the server's own,
			// which need not be ours behind a proxy.
			next, err := url.Parse(answer.Next)
			if err != nil || next.Query().Get("marker") == "" || next.Query().Get("marker") == q.Get("marker") {
				yield(nil, fmt.Errorf("the server's link to the next page of images, %q, leads nowhere", answer.Next))
				return
			}
			q = next.Query()
		}
	}
}

// Op is one change of an update, in the JSON-patch dialect of
// application/openstack-images-v2.1-json-patch.
type Op struct {
	Op    string `json:"op"` // add, replace, remove
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Pointer is the JSON pointer (RFC 6901) of a field or property.
func Pointer(field string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(field)
}

// Update applies ops to the image, all or none, and returns it.
func (c *Client) Update(ctx context.Context, id string, ops []Op) (Image, error) {
	var img Image
	err := c.call(ctx, request{
		method: http.MethodPatch, path: imagePath(id),
		header: http.Header{"Content-Type": {"application/openstack-images-v2.1-json-patch"}},
	}, ops, &img)
	return img, err
}

// Delete deletes the image.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: imagePath(id)}, nil, nil)
}

// Deactivate bars the image's data from everyone but administrators.
func (c *Client) Deactivate(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodPost, path: imagePath(id) + "/actions/deactivate"}, nil, nil)
}

// Reactivate undoes Deactivate.
func (c *Client) Reactivate(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodPost, path: imagePath(id) + "/actions/reactivate"}, nil, nil)
}

// AddTag adds a tag; one that is there already is no error.
func (c *Client) AddTag(ctx context.Context, id, tag string) error {
	return c.call(ctx, request{method: http.MethodPut, path: imagePath(id) + "/tags/" + url.PathEscape(tag)}, nil, nil)
}

// RemoveTag removes a tag.
func (c *Client) RemoveTag(ctx context.Context, id, tag string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: imagePath(id) + "/tags/" + url.PathEscape(tag)}, nil, nil)
}
