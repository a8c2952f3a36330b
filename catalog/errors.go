package catalog

import (
	"errors"
	"fmt"

	"glanced/catalog/disks"
	"glanced/catalog/intake"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
)

// Those of the catalog's rooms, under the same names, so that doors need not import them.
var (
	ErrNotFound    = records.ErrNotFound
	ErrExists      = records.ErrExists
	ErrStatus      = records.ErrStatus // a *StatusError says more
	ErrQuota       = records.ErrQuota  // a *QuotaError says more
	ErrMarker      = records.ErrMarker
	ErrBusy        = records.ErrBusy
	ErrFull        = records.ErrFull // the database; a store is ErrStoreFull
	ErrUnreachable = records.ErrUnreachable
	ErrUnknown     = records.ErrUnknown
	ErrLeased      = records.ErrLeased
	ErrLeaseLost   = records.ErrLeaseLost
	ErrTrimmed     = records.ErrTrimmed
	ErrInUse       = records.ErrInUse
	ErrParent      = records.ErrParent

	ErrInvalid = rules.ErrInvalid

	ErrStore         = stores.ErrStore
	ErrStoreFull     = stores.ErrStoreFull
	ErrUnknownStore  = stores.ErrUnknownStore
	ErrStoreReadOnly = stores.ErrStoreReadOnly
	ErrStoreDenied   = stores.ErrStoreDenied

	ErrStoredOnly        = disks.ErrStoredOnly
	ErrNoSnapshot        = disks.ErrNoSnapshot
	ErrNoData            = disks.ErrNoData
	ErrDeactivated       = disks.ErrDeactivated
	ErrParentDeactivated = disks.ErrParentDeactivated
	ErrSpoolFull         = disks.ErrSpoolFull
	ErrRevoked           = disks.ErrRevoked

	ErrFormat   = intake.ErrFormat
	ErrUnsafe   = intake.ErrUnsafe
	ErrGone     = intake.ErrGone
	ErrTooLarge = intake.ErrTooLarge
	ErrUploads  = intake.ErrUploads
	ErrBodySize = intake.ErrBodySize
	ErrBody     = intake.ErrBody
	ErrLocation = intake.ErrLocation
	ErrClosing  = intake.ErrClosing
)

// Those of the catalog itself; they come wrapped, with what was wrong.
var (
	ErrMetadata  = errors.New("the image has too much metadata")
	ErrFixed     = fmt.Errorf("only a queued image's formats can be changed: %w", ErrStatus)
	ErrProtected = errors.New("the image is protected and cannot be deleted")
)
