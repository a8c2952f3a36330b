package ctl

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/fields"
)

// The two dialects of JSON patch that Glance takes, each under its own media
// type: {"op": "replace", "path": "/name", "value": …} of draft 10, and
// {"replace": "/name", "value": …} of draft 4.
const (
	patchV20 = "application/openstack-images-v2.0-json-patch"
	patchV21 = "application/openstack-images-v2.1-json-patch"
)

var patchOps = []string{"add", "remove", "replace"}

// change is one operation of a patch, checked as far as it can be without the image.
type change struct {
	op    string
	name  string // of the attribute; pointers of other depths are refused
	value any    // of add and replace
}

// patchImage is PATCH /v2/images/{id}: all changes or none.
func (s *Server) patchImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != patchV20 && kind != patchV21 {
		return fail(http.StatusUnsupportedMediaType, "The request media type %s is not supported by this server.", shorten(r.Header.Get("Content-Type"))).
			with("Accept-Patch", patchV20+", "+patchV21)
	}
	n := bodyRecords(r)
	h, err := s.holdRecords(r.Context(), who, n, n)
	if err != nil {
		return err
	}
	defer h.Release()
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	changes, err := s.parsePatch(body, kind)
	if err != nil {
		return err
	}
	img, err := s.find(r, who, access.Modify)
	if err != nil {
		return err
	}
	if len(changes) > 0 {
		img, err = s.catalog.Update(r.Context(), img.ID, func(img *catalog.Image) error {
			if err := allow(who, access.Modify, *img); err != nil { // it may have changed hands since find
				return err
			}
			for _, c := range changes {
				if err := s.apply(img, who, c); err != nil {
					return err
				}
			}
			return nil
		})
		if errors.Is(err, catalog.ErrNotFound) {
			return noImage(img.ID)
		}
		if err != nil {
			return err
		}
	}
	return s.answerImage(w, http.StatusOK, img, h)
}

func (s *Server) parsePatch(body any, kind string) ([]change, error) {
	list, ok := body.([]any)
	if !ok {
		return nil, fail(http.StatusBadRequest, "Request body must be a JSON array of operation objects.")
	}
	var changes []change
	for _, item := range list {
		object, ok := item.(map[string]any)
		if !ok {
			return nil, fail(http.StatusBadRequest, "Operations must be JSON objects.")
		}
		read := readOpV21
		if kind == patchV20 {
			read = readOpV20
		}
		op, pointer, err := read(object)
		if err != nil {
			return nil, err
		}
		c := change{op: op}
		if c.name, err = parsePointer(pointer); err != nil {
			return nil, err
		}
		if err := settable(c.name); err != nil {
			return nil, err
		}
		if f, ok := fields.Find(c.name); ok && f.Writer == fields.Creator {
			return nil, fail(http.StatusForbidden, "Attribute '%s' is read-only.", c.name)
		}
		if op != "remove" {
			if c.value, ok = object["value"]; !ok {
				return nil, fail(http.StatusBadRequest, "Operation \"%s\" requires a member named \"value\".", op)
			}
			if err := check(c.name, c.value); err != nil {
				return nil, err
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func readOpV21(object map[string]any) (op, pointer string, err error) {
	v, ok := object["op"]
	if !ok {
		return "", "", fail(http.StatusBadRequest, "Unable to find `op` in JSON Schema change. It must be one of the following: %s.", strings.Join(patchOps, ", "))
	}
	op, ok = v.(string)
	if !ok || !slices.Contains(patchOps, op) {
		return "", "", fail(http.StatusBadRequest, "Invalid operation: `%s`. It must be one of the following: %s.", shorten(fmt.Sprint(v)), strings.Join(patchOps, ", "))
	}
	pointer, ok = object["path"].(string)
	if !ok {
		return "", "", fail(http.StatusBadRequest, "Unable to find 'path' in JSON Schema change")
	}
	return op, pointer, nil
}

func readOpV20(object map[string]any) (op, pointer string, err error) {
	for _, name := range patchOps {
		v, there := object[name]
		if !there {
			continue
		}
		if op != "" {
			return "", "", fail(http.StatusBadRequest, "Operation objects must contain only one member named \"add\", \"remove\", or \"replace\".")
		}
		var ok bool
		if pointer, ok = v.(string); !ok {
			return "", "", fail(http.StatusBadRequest, "Operation \"%s\" requires a JSON pointer as its value.", name)
		}
		op = name
	}
	if op == "" {
		return "", "", fail(http.StatusBadRequest, "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".")
	}
	return op, pointer, nil
}

// parsePointer reads a JSON pointer (RFC 6901) to an attribute of an image. All
// are one level deep; those below /locations, which Glance also has, are refused
// with all else about locations.
func parsePointer(pointer string) (string, error) {
	bad := func(format string) error { return fail(http.StatusBadRequest, format, shorten(pointer)) }
	rest, ok := strings.CutPrefix(pointer, "/")
	switch {
	case !ok:
		return "", bad("Pointer `%s` does not start with \"/\".")
	case strings.TrimSpace(rest) == "":
		return "", bad("Pointer `%s` does not contains a valid token.")
	case strings.HasSuffix(rest, "/"):
		return "", bad("Pointer `%s` end with \"/\".")
	}
	if left := strings.ReplaceAll(strings.ReplaceAll(rest, "~0", ""), "~1", ""); strings.Contains(left, "~") {
		return "", bad("Pointer `%s` contains \"~\" not part of a recognized escape sequence.")
	}
	name, _, deeper := strings.Cut(rest, "/")
	name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
	if deeper && name != "locations" {
		return "", bad("Invalid JSON pointer for this resource: '%s'")
	}
	return name, nil
}

// apply does one change to img, as Glance does: add replaces what is there;
// replace and remove want it to be there; what every image has is not removed.
func (s *Server) apply(img *catalog.Image, who Identity, c change) error {
	_, has := img.Properties[c.name]
	base := fields.IsBase(c.name)
	if c.op != "add" && !base && !has {
		return fail(http.StatusConflict, "Property %s does not exist.", shorten(c.name))
	}
	if c.op == "remove" {
		if base {
			return fail(http.StatusForbidden, "Property %s may not be removed.", c.name)
		}
		delete(img.Properties, c.name)
		return nil
	}
	if f, ok := fields.Find(c.name); ok && f.Fixed && img.Status != catalog.Queued {
		return fail(http.StatusForbidden, "Attribute %s can be only replaced for a queued image.", c.name)
	}
	if c.name == "owner" && allowAny(who, access.SetOwner) != nil {
		return fail(http.StatusForbidden, "Owner can't be updated by non admin.")
	}
	return assign(img, who, c.name, c.value)
}
