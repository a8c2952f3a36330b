package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/access"
)

// httpError is an error that knows its status and what to tell the client.
type httpError struct {
	status int
	text   string
	header http.Header // added to the answer; may be nil
}

func (e *httpError) Error() string { return fmt.Sprintf("%d %s", e.status, e.text) }

// fail makes the error that a client is to see, in these words.
func fail(status int, format string, args ...any) *httpError {
	return &httpError{status: status, text: fmt.Sprintf(format, args...)}
}

func (e *httpError) with(key, value string) *httpError {
	if e.header == nil {
		e.header = http.Header{}
	}
	e.header.Set(key, value)
	return e
}

func noImage(id string) *httpError {
	return fail(http.StatusNotFound, "No image found with ID %s", id)
}

// statusClientGone is never seen by anyone: the client left. It is nginx's
// number for that, so that the access log tells it from our own failures.
const statusClientGone = 499

// sentinel is one row of the table: what an error of another room means here.
// text is what the client reads; "" means the error's own words, only for errors
// that speak of the client's request or bytes, never of our paths or stores.
type sentinel struct {
	name   string // as declared, those of other rooms than the catalog with their package, so that a test can see that none is missing
	err    error
	status int
	text   string
}

// sentinels is in order: where an error wraps several, the first row wins.
var sentinels = []sentinel{
	{"ErrNotFound", catalog.ErrNotFound, http.StatusNotFound, "No such image"},
	{"ErrExists", catalog.ErrExists, http.StatusConflict, "An image with this id exists, or existed and was deleted: choose another id"},
	{"ErrMarker", catalog.ErrMarker, http.StatusBadRequest, "The marker is not an image of this list"},
	{"ErrBusy", catalog.ErrBusy, http.StatusServiceUnavailable, "The database is busy: try again"},
	{"ErrUnknown", catalog.ErrUnknown, http.StatusServiceUnavailable, "The database did not say whether the change was made: look before trying again"},
	{"ErrUnreachable", catalog.ErrUnreachable, http.StatusServiceUnavailable, "The database cannot be reached: try again"},
	{"ErrLeased", catalog.ErrLeased, http.StatusConflict, "Another daemon is at work on the image: try again"},
	{"ErrLeaseLost", catalog.ErrLeaseLost, http.StatusServiceUnavailable, "This daemon was silent for too long, and another one took the upload over; nothing was kept: upload again"},
	{"ErrFull", catalog.ErrFull, http.StatusInsufficientStorage, "The service has no room for its own records; nothing was changed: its disk needs room"},
	{"ErrInvalid", catalog.ErrInvalid, http.StatusBadRequest, ""},
	{"ErrMetadata", catalog.ErrMetadata, http.StatusRequestEntityTooLarge, ""},
	{"ErrLocation", catalog.ErrLocation, http.StatusBadRequest, ""},
	{"ErrProtected", catalog.ErrProtected, http.StatusForbidden, "The image is protected and cannot be deleted."},
	{"ErrInUse", catalog.ErrInUse, http.StatusConflict, "The image is in use by another image and cannot be deleted."},
	{"ErrParent", catalog.ErrParent, http.StatusConflict, "The image that this one stands on was changed or deleted while it was uploaded; nothing was kept"},
	{"ErrFormat", catalog.ErrFormat, http.StatusUnsupportedMediaType, ""},
	{"ErrUnsafe", catalog.ErrUnsafe, http.StatusUnsupportedMediaType, ""},
	{"ErrStoredOnly", catalog.ErrStoredOnly, http.StatusConflict, ""},
	{"ErrParentDeactivated", catalog.ErrParentDeactivated, http.StatusForbidden, ""},
	{"access.ErrHidden", access.ErrHidden, http.StatusNotFound, "No such image"},
	{"access.ErrDenied", access.ErrDenied, http.StatusForbidden, ""},
	{"ErrNoSnapshot", catalog.ErrNoSnapshot, http.StatusNotFound, ""},
	{"ErrNoData", catalog.ErrNoData, http.StatusNoContent, "The image has no data yet"},
	{"ErrDeactivated", catalog.ErrDeactivated, http.StatusForbidden, "The requested image has been deactivated. Image data download is forbidden."},
	{"ErrGone", catalog.ErrGone, http.StatusGone, "The image was deleted while its data was being uploaded"},
	{"ErrTooLarge", catalog.ErrTooLarge, http.StatusRequestEntityTooLarge, ""},
	{"ErrQuota", catalog.ErrQuota, http.StatusRequestEntityTooLarge, "Over the quota"},
	{"ErrStoreFull", catalog.ErrStoreFull, http.StatusRequestEntityTooLarge, "There is not enough space in the image store"},
	{"ErrSpoolFull", catalog.ErrSpoolFull, http.StatusServiceUnavailable, "There is no room now to decompress the image: try again later"},
	{"ErrClosing", catalog.ErrClosing, http.StatusServiceUnavailable, "The service is shutting down; nothing was kept: upload it again"},
	{"ErrUploads", catalog.ErrUploads, http.StatusServiceUnavailable, "Enough uploads are under way: try again when one of them is done"},
	{"ErrBodySize", catalog.ErrBodySize, http.StatusBadRequest, "The body is not as long as was announced; nothing was kept: upload it again"},
	{"ErrBody", catalog.ErrBody, http.StatusBadRequest, "The body could not be read to its end; nothing was kept: upload it again"},
	{"ErrUnknownStore", catalog.ErrUnknownStore, http.StatusBadRequest, "No store has this id; GET /v2/info/stores lists them"},
	{"ErrStoreReadOnly", catalog.ErrStoreReadOnly, http.StatusForbidden, "The image store is configured as read-only: no image can be uploaded to it, and none deleted that lies in it"},
	{"ErrStoreDenied", catalog.ErrStoreDenied, http.StatusServiceUnavailable, "The image store cannot be written; see the server's log"},
	{"stored.ErrUnavailable", stored.ErrUnavailable, http.StatusServiceUnavailable, "The image store cannot be reached; try again later"},
	{"stored.ErrDenied", stored.ErrDenied, http.StatusServiceUnavailable, "The image store refuses access; see the server's log"},
	{"stored.ErrChanged", stored.ErrChanged, http.StatusServiceUnavailable, "The data in the image store is not what was uploaded, and is not served; see the server's log"},
	{"stored.ErrNotFound", stored.ErrNotFound, http.StatusServiceUnavailable, "The data is no longer in the image store; see the server's log"},
	{"stored.ErrRange", stored.ErrRange, http.StatusInternalServerError, "The image says that it has data past its end; see the server's log"},
	{"ErrStore", catalog.ErrStore, http.StatusServiceUnavailable, "The image store failed; see the server's log"},
	{"ErrRevoked", catalog.ErrRevoked, http.StatusGone, "The image was withdrawn while it was being read"},
	{"ErrFixed", catalog.ErrFixed, http.StatusForbidden, "Attributes disk_format and container_format can be only replaced for a queued image."},
	{"ErrTrimmed", catalog.ErrTrimmed, http.StatusGone, "The log of changes no longer reaches back so far"},
	{"ErrStatus", catalog.ErrStatus, http.StatusConflict, "The image's status does not allow this"},
	{"ErrUnauthorized", ErrUnauthorized, http.StatusUnauthorized, "This request needs a valid token in X-Auth-Token"},
	{"ErrServiceToken", ErrServiceToken, http.StatusUnauthorized, "The token in X-Service-Token is not valid"},
	{"ErrNotChecked", ErrNotChecked, http.StatusServiceUnavailable, "The identity service does not say whether the token is valid: try again"},
	{"ErrNotCached", ErrNotCached, http.StatusNotFound, "Nothing of the image is cached, and it lies in no store that is read through the cache"},
	{"ErrCacheFull", ErrCacheFull, http.StatusInsufficientStorage, ""},
	{"ErrCacheBusy", ErrCacheBusy, http.StatusServiceUnavailable, "Enough images are being prefetched: try again when one of them is done"},
	{"Canceled", context.Canceled, statusClientGone, "The client went away"},
	{"DeadlineExceeded", context.DeadlineExceeded, http.StatusServiceUnavailable, "This took too long: try again"},
}

// explain turns any error into what the client is told. Typed errors come first:
// they name the numbers.
func explain(err error) *httpError {
	var known *httpError
	if errors.As(err, &known) {
		return known
	}
	var quota *catalog.QuotaError
	if errors.As(err, &quota) {
		return fail(http.StatusRequestEntityTooLarge, "Project %s is over a limit for [Resource %s is over limit of %d due to current usage %d and delta %d]",
			quota.Project, quota.Resource, quota.Limit, quota.Usage, quota.Delta)
	}
	var status *catalog.StatusError
	if errors.As(err, &status) {
		return fail(http.StatusConflict, "Image status transition from %s to %s is not allowed", status.Have, status.Want)
	}
	for _, row := range sentinels {
		if errors.Is(err, row.err) {
			text := row.text
			if text == "" {
				text = err.Error()
			}
			return fail(row.status, "%s", text)
		}
	}
	return fail(http.StatusInternalServerError, "The server could not do this; its log says why, under this answer's X-Openstack-Request-Id")
}

// errorBody is how an error looks on the wire. glanceclient joins the "message"
// of every object at the top level and prints "HTTP <message>"; openstacksdk
// does the same; so the message begins with the status line, and both tools
// print what they print for Glance: "HTTP 404 Not Found: No image found …".
type errorBody struct {
	Error struct {
		Code    int    `json:"code"`
		Title   string `json:"title"`
		Message string `json:"message"`
	} `json:"error"`
}

// answerError writes e. A 204 has no body: a queued image's data is not an error
// to any client.
func answerError(w http.ResponseWriter, e *httpError) {
	for k, v := range e.header {
		w.Header()[k] = v
	}
	if e.status == http.StatusNoContent {
		w.WriteHeader(e.status)
		return
	}
	var body errorBody
	body.Error.Code = e.status
	body.Error.Title = http.StatusText(e.status)
	body.Error.Message = fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.text)
	text, err := json.Marshal(body)
	if err != nil { // of strings and numbers: cannot be
		text = []byte(`{"error":{}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(e.status)
	w.Write(text)
}
