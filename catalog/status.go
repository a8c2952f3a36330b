package catalog

import "slices"

// Moves is the status machine: what each status may become (Glance,
// glance/domain/__init__.py, ImageFactory's valid transitions).
var Moves = map[Status][]Status{
	Queued:        {Saving, Uploading, Importing, Active, Deleted},
	Saving:        {Active, Killed, Deleted, Queued},
	Uploading:     {Importing, Queued, Deleted},
	Importing:     {Active, Deleted, Queued},
	Active:        {PendingDelete, Deleted, Deactivated},
	Deactivated:   {Active, Deleted},
	Killed:        {Deleted},
	PendingDelete: {Deleted, Active},
	Deleted:       {},
}

// move sets img's status if Moves has it, else it fails with a *StatusError. It
// is called inside a transaction of records.
func move(img *Image, to Status) error {
	if !slices.Contains(Moves[img.Status], to) {
		return &StatusError{ID: img.ID, Have: img.Status, Want: to}
	}
	img.Status = to
	return nil
}
