package ctl

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"glanced/catalog"
	"glanced/formats/encode"
)

// encodings are the disk formats that a guest disk can be downloaded in.
var encodings = []string{"raw", "qcow2", "vmdk"}

// encodingAsked is the format that r wants the guest disk in, or that of one of its
// snapshots; "" for the bytes as stored. What cannot be read is refused: leaving it
// out would answer with other bytes than were asked for.
func encodingAsked(r *http.Request) (format, snapshot string, err error) {
	params, err := readParams(r.URL.RawQuery)
	if err != nil {
		return "", "", err
	}
	for _, p := range params {
		switch p.name {
		case "disk_format":
			format = p.value
			if !slices.Contains(encodings, format) {
				return "", "", fail(http.StatusBadRequest, "A disk can be downloaded as one of %s, not as '%s'.", strings.Join(encodings, ", "), shorten(format))
			}
		case "snapshot":
			if snapshot = p.value; snapshot == "" {
				return "", "", fail(http.StatusBadRequest, "The name of the snapshot is missing.")
			}
		}
	}
	if snapshot != "" && format == "" {
		return "", "", fail(http.StatusBadRequest, "A snapshot can be downloaded as one of %s only: set disk_format.", strings.Join(encodings, ", "))
	}
	return format, snapshot, nil
}

// sendAs answers with h's guest disk in one of encodings, made as it is sent. raw
// and qcow2 have a length and ranges; vmdk is streamOptimized, and compressed as it
// goes out. None has the checksum of the stored bytes.
func (s *Server) sendAs(w http.ResponseWriter, r *http.Request, h *catalog.Handle, format, snapshot string) error {
	if format == "vmdk" {
		return s.sendVMDK(w, r, h)
	}
	tag := ""
	if snapshot == "" { // a snapshot's name can be any text, and a tag not
		tag = entityTag(h.Image(), "-"+format)
	}
	if format == "raw" {
		return s.send(w, r, h, tag)
	}
	img, err := encode.QCOW2(r.Context(), h)
	if err != nil {
		return beyond(err)
	}
	return s.send(w, r, img, tag)
}

func (s *Server) sendVMDK(w http.ResponseWriter, r *http.Request, h *catalog.Handle) error {
	out := &paced{w: w, rc: http.NewResponseController(w), stall: s.stall}
	err := encode.VMDK(r.Context(), h, out)
	if err != nil && out.begun {
		s.breakOff(w.Header(), r, err)
	}
	return beyond(err)
}

// beyond is err, or where a disk is more, or less, than a format can hold, what
// the client is told of it.
func beyond(err error) error {
	if errors.Is(err, encode.ErrLimit) {
		return fail(http.StatusConflict, "%s", err)
	}
	return err
}

// paced writes an answer of unknown length, to a client that takes it in time.
type paced struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
	begun bool // the header is out
}

func (p *paced) Write(b []byte) (int, error) {
	if !p.begun {
		p.begun = true
		p.w.Header().Set("Content-Type", "application/octet-stream")
		p.w.WriteHeader(http.StatusOK)
	}
	p.rc.SetWriteDeadline(time.Now().Add(p.stall))
	return p.w.Write(b)
}
