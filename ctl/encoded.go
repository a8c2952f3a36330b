package ctl

import (
	"errors"
	"net/http"
	"slices"
	"strings"

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
	out := &unmeasured{patientWriter: s.patient(w)}
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

// unmeasured writes an answer of unknown length.
type unmeasured struct {
	*patientWriter
	begun bool // the header is out
}

func (u *unmeasured) Write(b []byte) (int, error) {
	if !u.begun {
		u.begun = true
		u.w.Header().Set("Content-Type", "application/octet-stream")
		u.w.WriteHeader(http.StatusOK)
	}
	return u.patientWriter.Write(b)
}
