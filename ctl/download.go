package ctl

import (
	"errors"
	"net/http"
	"strconv"

	"glanced/catalog"
	"glanced/catalog/access"
)

// download is GET /v2/images/{id}/file: the bytes as they were stored, or, where
// disk_format asks for it, the guest disk in another format.
func (s *Server) download(w http.ResponseWriter, r *http.Request, who Identity) error {
	img, err := s.find(r, who, access.Download)
	if err != nil {
		return err
	}
	format, snapshot, err := encodingAsked(r)
	if err != nil {
		return err
	}
	v := catalog.View{Stored: format == "", Snapshot: snapshot, Deactivated: true}
	h, err := s.catalog.Open(r.Context(), who, img.ID, v)
	if errors.Is(err, catalog.ErrNotFound) {
		return noImage(img.ID)
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if format != "" {
		return s.sendAs(w, r, h, format, v.Snapshot)
	}
	img = h.Image()
	tag := entityTag(img, "")
	if img.Checksum != nil {
		// Of the whole file even in a part of it, and in hex: so Glance has it, and
		// glanceclient compares it.
		w.Header().Set("Content-MD5", *img.Checksum)
	}
	return s.send(w, r, h, tag)
}

// writeHead begins the answer with part of size bytes.
func writeHead(w http.ResponseWriter, size int64, part byteRange, partial bool, tag string) {
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.FormatInt(part.n, 10))
	header.Set("Accept-Ranges", "bytes")
	if tag != "" {
		header.Set("ETag", tag)
	}
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		header.Set("Content-Range", part.contentRange(size))
	}
	w.WriteHeader(status)
}

// withoutChecksum takes back what was said of bytes that are not sent.
func withoutChecksum(header http.Header, err error) error {
	header.Del("Content-MD5")
	return err
}

// breakOff ends an answer that is under way: a broken connection is the only way
// left to say that it failed.
func (s *Server) breakOff(header http.Header, r *http.Request, err error) {
	s.log.Info("an answer ended early", "request", header.Get(requestIDHeader), "path", r.URL.Path, "err", err)
	panic(http.ErrAbortHandler)
}

// entityTag names the bytes for If-Range (RFC 9110, 13.1.5). An image's data
// never changes, so its hash is the strongest tag there is; kind tells apart what is
// made of it.
func entityTag(img catalog.Image, kind string) string {
	if img.HashValue == nil {
		return ""
	}
	return `"` + *img.HashValue + kind + `"`
}
