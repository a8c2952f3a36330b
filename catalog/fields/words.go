package fields

import (
	"net/url"
	"strings"

	"glanced/catalog/records"
)

// Limits of what users write. Glance counts characters, not bytes; so do we.
const (
	MaxTags          = 128
	MaxProperties    = 128
	MaxPropertyName  = 255   // characters
	MaxPropertyValue = 65535 // bytes: a TEXT column of MySQL, as in Glance

	maxText    = 255       // of a name, an owner, a tag; characters
	maxMinimum = 1<<31 - 1 // of min_disk and min_ram
)

// Glance's words, in the order of its schema.
var (
	containerFormats = []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
	diskFormats      = []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
	statuses         = words(records.Queued, records.Saving, records.Active, records.Killed, records.Deleted,
		records.Uploading, records.Importing, records.PendingDelete, records.Deactivated)
)

func words(of ...records.Status) (all []string) {
	for _, s := range of {
		all = append(all, string(s))
	}
	return all
}

// uuidPattern is Glance's spelling of what IsID tells.
const uuidPattern = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"

const aUUID = "a UUID"

// IDLength is the length of an image's id, bytes.
const IDLength = len("00000000-0000-0000-0000-000000000000")

// IsID tells whether s is spelled as an image's id: the canonical form of a UUID, in
// either case.
func IsID(s string) bool {
	if len(s) != IDLength {
		return false
	}
	for i, c := range []byte(s) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		digit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if hyphen != (c == '-') || !hyphen && !digit {
			return false
		}
	}
	return true
}

// Path is the path of an image in the API.
func Path(id string) string { return "/v2/images/" + url.PathEscape(id) }

// What the API makes of other fields.

func self(i *records.Image) Value { return text(Path(i.ID)) }
func file(i *records.Image) Value { return text(Path(i.ID) + "/file") }

func schema(*records.Image) Value { return text("/v2/schemas/image") }

// stores are the ids of the stores that the image lies in; a deactivated image's are not
// shown, as its locations are not in Glance.
func stores(i *records.Image) Value {
	if i.Status == records.Deactivated {
		return textOrNull("")
	}
	ids := make([]string, len(i.Locations))
	for n, l := range i.Locations {
		ids[n] = l.Store
	}
	return textOrNull(strings.Join(ids, ","))
}

func backingImage(i *records.Image) Value {
	if i.Parent == nil {
		return textOrNull("")
	}
	return text(i.Parent.ID)
}

// snapshots are the names of the disks kept inside the image: a list in JSON, as text,
// for the values of an image's properties are text.
func snapshots(i *records.Image) Value {
	if len(i.Snapshots) == 0 {
		return textOrNull("")
	}
	names := make([]string, len(i.Snapshots))
	for n, s := range i.Snapshots {
		names[n] = s.Name
	}
	return text(listText(names))
}
