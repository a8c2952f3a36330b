package ctl

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"glanced/catalog"
	"glanced/catalog/access"
)

const (
	defaultLimit = 25   // Glance's limit_param_default
	maxLimit     = 1000 // Glance's api_limit_max
)

// listImages is GET /v2/images.
func (s *Server) listImages(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.List); err != nil {
		return err
	}
	params, err := readParams(r.URL.RawQuery)
	if err != nil {
		return err
	}
	q, err := listQuery(params, who)
	if err != nil {
		return err
	}
	h, err := s.holdRecords(r.Context(), who, leastRecords, mostRecords)
	if err != nil {
		return err
	}
	defer h.Release()
	var images []catalog.Image
	var more bool
	if q.Limit > 0 {
		// A page is as long as its memory lets it be: the next one is linked to.
		images, more, err = s.catalog.Page(r.Context(), q, h.Bytes()-answerPiece)
		if errors.Is(err, catalog.ErrMarker) {
			return fail(http.StatusBadRequest, "No image found with ID %s", shorten(q.Marker))
		}
		if err != nil {
			return err
		}
	}
	kept := int64(answerPiece)
	for i := range images {
		kept += images[i].Bytes()
	}
	h.Keep(kept)
	s.answerImages(w, params, images, more)
	return nil
}

// answerImages sends a page of images; more tells that there is a next one.
func (s *Server) answerImages(w http.ResponseWriter, params []param, images []catalog.Image, more bool) {
	a := s.newAnswer(w, http.StatusOK)
	a.text(`{"first":`)
	a.value(listLink(params, ""))
	a.text(`,"images":[`)
	for i := range images {
		if i > 0 {
			a.text(",")
		}
		a.image(&images[i])
	}
	a.text("]")
	if more && len(images) > 0 {
		a.text(`,"next":`)
		a.value(listLink(params, images[len(images)-1].ID))
	}
	a.text(`,"schema":"/v2/schemas/images"}`)
	a.end()
}

// param is one name=value of a query; the order is the client's.
type param struct{ name, value string }

func readParams(raw string) ([]param, error) {
	var params []param
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, fail(http.StatusBadRequest, "The query is not properly escaped.")
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, fail(http.StatusBadRequest, "The query is not properly escaped.")
		}
		if !isText(name) || !isText(value) {
			return nil, fail(http.StatusBadRequest, "The query is not valid UTF-8.")
		}
		params = append(params, param{name, value})
	}
	return params, nil
}

// listLink is this list's address again, filters kept in their order, from the
// first page or from the one after marker.
func listLink(params []param, marker string) string {
	var parts []string
	for _, p := range params {
		if p.name != "marker" {
			parts = append(parts, url.QueryEscape(p.name)+"="+url.QueryEscape(p.value))
		}
	}
	if marker != "" {
		parts = append(parts, "marker="+url.QueryEscape(marker))
	}
	if len(parts) == 0 {
		return "/v2/images"
	}
	return "/v2/images?" + strings.Join(parts, "&")
}

func parseLimit(value string) (int, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		err = nil // far above the maximum is above the maximum
	}
	if err != nil {
		return 0, fail(http.StatusBadRequest, "limit param must be an integer")
	}
	if n < 0 {
		return 0, fail(http.StatusBadRequest, "limit param must be positive")
	}
	return int(min(n, maxLimit)), nil
}
