package rules

import "glanced/catalog/records"

// deactivatedProperty marks the record of a held image that was deactivated when it was
// deleted: what other projects have standing on it stays unreadable.
const deactivatedProperty = "os_glance_deactivated"

// Retire makes the record that of a deleted image (Deleted), or of one that is held by
// those that stand on it (PendingDelete). It is for the function of an Update.
func Retire(img *records.Image, to records.Status) error {
	deactivated := img.Status == records.Deactivated || img.Properties[deactivatedProperty] != ""
	if err := Move(img, to); err != nil {
		return err
	}
	img.Properties, img.Tags = nil, nil
	if to == records.Deleted {
		img.Parent = nil
	} else if deactivated {
		img.Properties = map[string]string{deactivatedProperty: "true"}
	}
	return nil
}

// Blocked tells whether an image is deactivated, or was when it was deleted and is held.
func Blocked(img records.Image) bool {
	return img.Status == records.Deactivated || img.Status == records.PendingDelete && img.Properties[deactivatedProperty] != ""
}
