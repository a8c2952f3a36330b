package rules

import (
	"slices"

	"glanced/catalog/records"
)

// Moves is the status machine: what each status may become (Glance,
// glance/domain/__init__.py, ImageFactory's valid transitions).
var Moves = map[records.Status][]records.Status{
	records.Queued:        {records.Saving, records.Uploading, records.Importing, records.Active, records.Deleted},
	records.Saving:        {records.Active, records.Killed, records.Deleted, records.Queued},
	records.Uploading:     {records.Importing, records.Queued, records.Deleted},
	records.Importing:     {records.Active, records.Deleted, records.Queued},
	records.Active:        {records.PendingDelete, records.Deleted, records.Deactivated},
	records.Deactivated:   {records.Active, records.PendingDelete, records.Deleted}, // PendingDelete is not Glance's: held by its children
	records.Killed:        {records.Deleted},
	records.PendingDelete: {records.Deleted, records.Active},
	records.Deleted:       {},
}

// Move sets img's status if Moves has it, else it fails with a *StatusError. It
// is for the function of an Update.
func Move(img *records.Image, to records.Status) error {
	if !slices.Contains(Moves[img.Status], to) {
		return &records.StatusError{ID: img.ID, Have: img.Status, Want: to}
	}
	img.Status = to
	return nil
}
