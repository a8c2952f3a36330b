package access

import (
	"errors"
	"fmt"

	"glanced/catalog/records"
)

// Sentinels of Check and May.
var (
	// ErrHidden says that who asked must not even know of the image. To them there is none.
	ErrHidden = errors.New("no such image can be seen")
	// ErrDenied comes as a *DeniedError.
	ErrDenied = errors.New("not allowed")
)

// DeniedError is an ErrDenied that says what was asked for, and whether it is
// denied because another project owns the image.
type DeniedError struct {
	Action   string // Glance's name of the policy, where Glance has one
	NotOwner bool
}

func (e *DeniedError) Error() string {
	if e.NotOwner {
		return fmt.Sprintf("%s: another project owns the image", e.Action)
	}
	return fmt.Sprintf("%s: the role that this needs is missing", e.Action)
}
func (e *DeniedError) Unwrap() error { return ErrDenied }

// Verb is one thing that somebody may want to do.
type Verb int

const (
	List Verb = iota
	Show
	Download
	Create
	Modify
	Upload
	Delete
	Deactivate
	Reactivate
	ListMembers
	Publicize           // make public
	DownloadDeactivated // read the data of a deactivated image
	SetOwner            // to a project that is not one's own
	Administer          // the admin API
)

// relation is what an image must be to who acts on it; what is about no image has none.
type relation int

const (
	none   relation = iota
	viewed          // it can be seen
	owned           // its project owns it
)

// policy is the table of who may: those with the role at least, where the image is to
// them what it says. An administrator may all of it, with any image.
var policy = map[Verb]struct {
	role  string
	image relation
	name  string
}{
	List:                {Reader, none, "get_images"},
	Show:                {Reader, viewed, "get_image"},
	Download:            {Reader, viewed, "download_image"},
	Create:              {Member, none, "add_image"},
	Modify:              {Member, owned, "modify_image"},
	Upload:              {Member, owned, "upload_image"},
	Delete:              {Member, owned, "delete_image"},
	Deactivate:          {Member, owned, "deactivate"},
	Reactivate:          {Member, owned, "reactivate"},
	ListMembers:         {Reader, owned, "get_members"},
	Publicize:           {Admin, none, "publicize_image"},
	DownloadDeactivated: {Admin, viewed, "download_image of a deactivated image"},
	SetOwner:            {Admin, none, "set the owner"},
	Administer:          {Admin, none, "admin"},
}

// String is Glance's name of the policy, where Glance has one.
func (v Verb) String() string { return policy[v].name }

// Check returns nil, ErrHidden, or a *DeniedError.
func Check(who Identity, v Verb, img records.Image) error {
	rule := policy[v]
	switch {
	case who.IsAdmin():
		return nil
	case !Sees(who).Contains(img):
		return fmt.Errorf("image %s: %w", img.ID, ErrHidden)
	case rule.image == owned && !owns(who, img):
		return &DeniedError{Action: rule.name, NotOwner: true}
	case rule.role == Reader && who.Granted.Contains(img):
		return nil
	}
	return May(who, v)
}

// May is Check for what is not about one image.
func May(who Identity, v Verb) error {
	rule := policy[v]
	if who.rank() < rankOf(rule.role) {
		return &DeniedError{Action: rule.name}
	}
	return nil
}

func owns(who Identity, img records.Image) bool {
	return who.Project != "" && img.Owner == who.Project
}
