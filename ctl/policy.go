package ctl

import (
	"net/http"

	"glanced/catalog"
)

// action is one thing that a caller may want to do with an image.
type action int

const (
	actShow action = iota
	actDownload
	actModify
	actUpload
	actDelete
	actDeactivate
	actReactivate
	actListMembers
	actPublish         // make public
	actDownloadBlocked // the bytes of a deactivated image
	actGiveAway        // set an owner that is not the caller's project
	actAdmin           // /admin/…
)

// rule says who may, beyond admins, who may do everything.
type rule int

const (
	onlyAdmin rule = iota
	owner          // the project that owns the image
	viewer         // whoever can see the image
)

// policy is Glance's default policy for the actions that there are. words is how
// a refusal names the action: Glance's policy name where Glance has one.
var policy = map[action]struct {
	who   rule
	words string
}{
	actShow:            {viewer, "get_image"},
	actDownload:        {viewer, "download_image"},
	actModify:          {owner, "modify_image"},
	actUpload:          {owner, "upload_image"},
	actDelete:          {owner, "delete_image"},
	actDeactivate:      {owner, "deactivate"},
	actReactivate:      {owner, "reactivate"},
	actListMembers:     {owner, "get_members"},
	actPublish:         {onlyAdmin, "publicize_image"},
	actDownloadBlocked: {onlyAdmin, "download_image of a deactivated image"},
	actGiveAway:        {onlyAdmin, "set the owner"},
	actAdmin:           {onlyAdmin, "admin"},
}

// visible says whether who may know that img exists. Public and community images
// are everyone's to see, all others their owner's.
func visible(who Identity, img catalog.Image) bool {
	return who.Admin || img.Owner == who.Project || img.Visibility == "public" || img.Visibility == "community"
}

// allow returns nil, or the error for the client: 404 for an image that who must
// not know of, 403 for one that they may look at only.
func allow(who Identity, a action, img catalog.Image) error {
	if !visible(who, img) {
		return noImage(img.ID)
	}
	switch policy[a].who {
	case viewer:
		return nil
	case owner:
		if who.Admin || img.Owner == who.Project {
			return nil
		}
		return fail(http.StatusForbidden, "You do not own this image")
	}
	return allowAny(who, a)
}

// allowAny is allow for actions that are not about one image.
func allowAny(who Identity, a action) error {
	if who.Admin {
		return nil
	}
	return fail(http.StatusForbidden, "You are not authorized to complete %s action.", policy[a].words)
}
