package ctl

import (
	"errors"
	"net/http"

	"glanced/catalog"
	"glanced/catalog/access"
)

// Identity is who asks; catalog/access says what they may.
type Identity = access.Identity

// allow returns nil, or the error for the client: 404 for an image that who must
// not know of, 403 for one that they may look at only.
func allow(who Identity, v access.Verb, img catalog.Image) error {
	return refusal(who, access.Check(who, v, img), img.ID)
}

// allowAny is allow for what is not about one image.
func allowAny(who Identity, v access.Verb) error { return refusal(who, access.May(who, v), "") }

// refusal is what the client is told of err, which is of package access; id is the
// image's.
func refusal(who Identity, err error, id string) error {
	var denied *access.DeniedError
	switch {
	case errors.Is(err, access.ErrHidden):
		return noImage(id)
	case errors.As(err, &denied) && denied.NotOwner:
		return fail(http.StatusForbidden, "You do not own this image")
	case errors.As(err, &denied) && who.Project == "":
		return fail(http.StatusForbidden, "You are not authorized to complete %s action: it needs a token that is scoped to a project.", denied.Action)
	case errors.As(err, &denied):
		return fail(http.StatusForbidden, "You are not authorized to complete %s action.", denied.Action)
	}
	return err
}
