package main

import (
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"glanced/cmd/glancectl/internal/glanceapi"
	"glanced/formats"
)

// advice says what to do about err, "" where err says all there is to say.
func advice(err error) string {
	var own *advised
	if errors.As(err, &own) {
		return own.hint
	}
	var conn *glanceapi.ConnError
	if errors.As(err, &conn) {
		return connAdvice(conn)
	}
	var answer *glanceapi.Error
	if errors.As(err, &answer) {
		return answerAdvice(answer.Status)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "The disk is full: make room, or name a file on another disk."
	case errors.Is(err, formats.ErrReference):
		return "References inside an image are never followed. Flatten it first with: qemu-img convert -O qcow2 FILE FLAT"
	case errors.Is(err, formats.ErrEncrypted):
		return "Decrypt it first, for instance with qemu-img convert and its --object secret."
	case errors.Is(err, formats.ErrFormat):
		return "See what the file is with: glancectl disk info FILE"
	}
	return ""
}

// advised is an error that brings its own hint.
type advised struct {
	err  error
	hint string
}

func (e *advised) Error() string { return e.err.Error() }
func (e *advised) Unwrap() error { return e.err }

func connAdvice(e *glanceapi.ConnError) string {
	switch {
	case errors.Is(e, syscall.EACCES) || errors.Is(e, fs.ErrPermission):
		return "The socket is for root, the daemon's user and its group: use sudo, or join the group."
	case !e.Client.OverSocket() && errors.Is(e, syscall.ECONNREFUSED):
		return "Is glanced running, and does it listen there? Name the right address with --url, or use the socket with --socket."
	case e.Client.OverSocket() && (errors.Is(e, syscall.ECONNREFUSED) || errors.Is(e, fs.ErrNotExist)):
		return "Is glanced running? Start it with `make run`, or name the socket with --socket."
	}
	return ""
}

func answerAdvice(status int) string {
	switch status {
	case http.StatusMultipleChoices, http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return "Check --url: it is the address of the Images API, as in http://127.0.0.1:9292."
	case http.StatusUnauthorized:
		return "The token is missing or not accepted: give it with --token or --token-file (glanced keeps one in admin.token), or use --socket as root."
	case http.StatusForbidden:
		return "Your user or token may not do that, or the image is protected (undo with: glancectl image update ID --protected=false)."
	case http.StatusNotFound:
		return "See what there is with: glancectl image list --all"
	case http.StatusConflict:
		return "See the state of the image with: glancectl image show ID"
	case http.StatusRequestEntityTooLarge:
		return "A quota, a size limit or the room in the store is in the way: see glancectl quota show PROJECT, which an administrator raises with glancectl quota set, and glancectl status."
	case http.StatusUnsupportedMediaType:
		return "See what the file is, and whether it is safe, with glancectl disk info FILE; declare its format with --disk-format."
	case http.StatusServiceUnavailable:
		return "The server is busy or a store is down: try again later, and see glancectl status."
	case http.StatusInsufficientStorage:
		return "The disk of the server's catalog or store is full: give it room."
	}
	return ""
}
