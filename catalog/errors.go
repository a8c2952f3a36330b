package catalog

import (
	"errors"
	"fmt"

	"glanced/catalog/records"
)

// Those of catalog/records.
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
)

// Those of the catalog itself; they come wrapped, with what was wrong.
var (
	ErrInvalid           = errors.New("invalid value")
	ErrMetadata          = errors.New("the image has too much metadata")
	ErrFixed             = fmt.Errorf("only a queued image's formats can be changed: %w", ErrStatus)
	ErrProtected         = errors.New("the image is protected and cannot be deleted")
	ErrFormat            = errors.New("the content does not match the disk format")
	ErrUnsafe            = errors.New("the content is not safe to use")
	ErrStoredOnly        = errors.New("the image has no readable guest disk")
	ErrNoSnapshot        = errors.New("no such snapshot")
	ErrNoData            = errors.New("the image has no data yet")
	ErrDeactivated       = errors.New("the image is deactivated")
	ErrGone              = errors.New("the image was deleted while its data was uploaded")
	ErrTooLarge          = errors.New("the image is larger than this service takes")
	ErrStoreFull         = errors.New("the store has no room for the image")
	ErrUploads           = errors.New("too many uploads are under way")
	ErrSpoolFull         = errors.New("there is no room now to decompress the image")
	ErrBodySize          = errors.New("the data is not as long as announced")
	ErrBody              = errors.New("the upload was cut off")
	ErrLocation          = errors.New("the location cannot be used")
	ErrUnknownStore      = errors.New("no such store")
	ErrStoreReadOnly     = errors.New("the store is configured as read-only")
	ErrStoreDenied       = errors.New("the store cannot be written")
	ErrParentDeactivated = errors.New("the image stands on a deactivated one of another project")
	ErrStore             = errors.New("the store failed")
	ErrClosing           = errors.New("the service is shutting down")
	ErrRevoked           = errors.New("the image was withdrawn")
)
