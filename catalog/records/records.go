// Package records is the contract for what the catalog remembers: image records,
// quotas and the log of changes. It knows nothing of the images' bytes.
package records

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Sentinels of the contract.
var (
	ErrNotFound    = errors.New("no such image")
	ErrExists      = errors.New("an image with this id exists, or existed and was deleted")
	ErrStatus      = errors.New("the image's status does not allow this") // see StatusError
	ErrQuota       = errors.New("over the quota")                         // see QuotaError
	ErrInUse       = errors.New("the image is in use by another image")
	ErrParent      = errors.New("the parent image cannot be used")
	ErrMarker      = errors.New("no such marker")
	ErrBusy        = errors.New("the database is busy")
	ErrFull        = errors.New("the database has no room on its disk")
	ErrUnreachable = errors.New("the database cannot be reached")
	ErrUnknown     = errors.New("the database did not say whether the change was made") // it may have been
	ErrLeased      = errors.New("another daemon is at work on it")
	ErrLeaseLost   = errors.New("another daemon has taken over the work on it")
	ErrTrimmed     = errors.New("the log of changes no longer reaches back so far")
)

// Status is where an image stands in its life. The moves allowed are one table,
// rules.Moves.
type Status string

const (
	Queued        Status = "queued"
	Saving        Status = "saving"
	Uploading     Status = "uploading"
	Importing     Status = "importing"
	Active        Status = "active"
	Deactivated   Status = "deactivated"
	Killed        Status = "killed"
	Deleted       Status = "deleted"
	PendingDelete Status = "pending_delete"
)

// StatusError is an ErrStatus that says what was found.
type StatusError struct {
	ID         string
	Have, Want Status
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("image %s is %s and cannot become %s", e.ID, e.Have, e.Want)
}
func (e *StatusError) Unwrap() error { return ErrStatus }

// QuotaError is an ErrQuota that says which, in the quota's own unit.
type QuotaError struct {
	Project, Resource   string // Resource: image_count_total or image_size_total
	Limit, Usage, Delta int64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("project %s is over its quota for %s: limit %d, in use %d, asked for %d more", e.Project, e.Resource, e.Limit, e.Usage, e.Delta)
}
func (e *QuotaError) Unwrap() error { return ErrQuota }

// Location is one place where an image's bytes lie; see backends.Location.
type Location struct {
	Store    string
	URL      string
	Size     int64  // bytes; -1 = not recorded
	Version  string // which state of the bytes; "" = not recorded
	Metadata map[string]string
}

// Claim is what an upload that is under way, or was cut off, may have left in a
// store; see backends.Claim.
type Claim struct {
	Store string
	Claim string
}

// Parent is the image whose disk shows through where another one's has nothing.
// The edge is written when the child becomes active, and does not change.
type Parent struct {
	ID        string
	HashValue string // of the parent's bytes, as they were when the edge was made
}

// Snapshot is a disk that an image keeps inside, beside its active one.
type Snapshot struct {
	Name        string `json:"name"`         // as it is addressed: unique in its image, a valid file name
	ID          string `json:"id"`           // what the image itself calls it by
	VirtualSize int64  `json:"virtual_size"` // bytes
}

// Image is one image's record. Pointers are nil where Glance says null.
type Image struct {
	ID              string
	Name            *string
	Status          Status
	DiskFormat      *string
	ContainerFormat *string
	Visibility      string // public | private | shared | community
	Owner           string // project id
	Protected       bool
	Hidden          bool
	MinDisk         int64 // GiB
	MinRAM          int64 // MiB
	Size            *int64
	VirtualSize     *int64
	Allocated       *int64 // bytes of the guest disk that are not holes, measured when it was taken in
	Checksum        *string
	HashAlgo        *string
	HashValue       *string
	DiskError       string // why the image has no guest disk ("stored only"); "" = it has one, once active
	Parent          *Parent
	Snapshots       []Snapshot
	CreatedAt       time.Time
	UpdatedAt       time.Time
	Properties      map[string]string // custom properties
	Tags            []string          // sorted, unique
	Locations       []Location

	// Of an upload under way:
	Node     string // which daemon has it
	Reserved int64  // bytes counted against image_size_total for it
	Claims   []Claim
}

// Clone is a deep copy.
func (i Image) Clone() Image {
	i.Properties = maps.Clone(i.Properties)
	i.Tags = slices.Clone(i.Tags)
	i.Locations = slices.Clone(i.Locations)
	i.Claims = slices.Clone(i.Claims)
	i.Snapshots = slices.Clone(i.Snapshots)
	if i.Parent != nil {
		parent := *i.Parent
		i.Parent = &parent
	}
	return i
}

// What a record takes in memory beside its text: itself, and each of its parts.
const (
	RecordBytes = 1 << 10
	PartBytes   = 128 // of a property or a tag, say
)

// Bytes is about what the record takes in memory, bytes.
func (i *Image) Bytes() int64 {
	n := RecordBytes + len(i.Owner) + len(i.DiskError)
	if i.Name != nil {
		n += len(*i.Name)
	}
	for name, value := range i.Properties {
		n += PartBytes + len(name) + len(value)
	}
	for _, tag := range i.Tags {
		n += PartBytes + len(tag)
	}
	for _, s := range i.Snapshots {
		n += PartBytes + len(s.Name) + len(s.ID)
	}
	for _, l := range i.Locations {
		n += PartBytes + len(l.URL)
	}
	return int64(n)
}

// Compare is one comparison of a filter: Op is eq, neq, gt, gte, lt or lte.
type Compare struct {
	Op   string
	Time time.Time
}

// Range is what a number must be: each of its parts that is not nil.
type Range struct {
	Is, Min, Max *int64
}

// SortKey orders a List; Key is the API's name of a field that catalog/fields sorts by.
type SortKey struct {
	Key  string
	Desc bool
}

// Query selects images. Empty fields do not filter; slices mean "one of".
// Deleted images, and those that are pending_delete, are listed only where Status asks
// for them.
type Query struct {
	Scope           Scope  // what the viewer may see: nothing else is found
	Among           *Scope // which of that is listed; nil = all
	ID              []string
	Name            []string
	Status          []Status
	DiskFormat      []string
	ContainerFormat []string
	Owner           []string
	Protected       *bool
	Hidden          *bool // nil: both
	Size            Range
	VirtualSize     Range
	MinDisk, MinRAM Range
	Checksum        []string
	HashAlgo        []string
	HashValue       []string
	Tags            []string          // all of them
	Properties      map[string]string // all of them, exactly
	Parent          string            // only those whose Parent this image is
	Holding         bool              // only those that have Locations or Claims
	Unhashed        bool              // only those that have no HashValue
	CreatedAt       []Compare
	UpdatedAt       []Compare
	Sort            []SortKey // empty: created_at desc, id desc
	Marker          string    // id after which the page begins; ErrMarker if it is not in Scope
	AfterID         string    // only greater ids: with Sort by id, a walk that no deletion disturbs
	Brief           bool      // without Properties, Tags, Locations and Claims
	Limit           int       // 0: no limit
}

// Seq numbers changes, rising.
type Seq int64

// ChangeKind says what happened to an image.
type ChangeKind string

const (
	Created ChangeKind = "created"
	Updated ChangeKind = "updated" // any field, the status too
	Removed ChangeKind = "deleted"
)

// Change is one entry of the log.
type Change struct {
	Seq    Seq
	Kind   ChangeKind
	ID     string
	Status Status // after it
}

// What a Lease may be on.
const (
	UploadLease = "upload" // an image whose data is taken in, or what that left is removed
	BytesLease  = "bytes"  // a deleted image whose bytes are still to be removed
	HashLease   = "hash"   // an image whose data is hashed where it lies
	NodeLease   = "node"   // a daemon that runs: its own name
)

// Lease says that a node works on something, and until when nobody else does.
type Lease struct {
	Kind, ID string
	Node     string // whose it is
	Holder   string // of one taking: no two are the same
	Lapsed   bool   // its time is over, by the database's clock: others may take it
}

// Quota is what one project may have; 0 = no limit.
type Quota struct {
	ImageCountTotal int64
	ImageSizeTotal  int64 // MiB
}

// Usage is what one project has.
type Usage struct {
	ImageCount int64
	ImageBytes int64 // stored and reserved
}

// DB keeps rows and decides nothing about them: what an image may become, what a
// project may have and what counts as a change is written once, in catalog/rules,
// above this. Safe for concurrent use, by several processes too.
type DB interface {
	// View runs do in a transaction in which all that is read is of one moment. what
	// names the work in errors.
	View(ctx context.Context, what string, do func(Tx) error) error
	// Change runs do in a transaction that is durable when Change returns nil, and has
	// no effect when it fails. do may be run again, from its beginning, when another
	// transaction was in its way: it must set anew all that it leaves outside, must be
	// quick, and must call nothing that waits for another transaction. An error of do
	// comes back wrapped. ErrBusy, ErrFull, ErrUnreachable; ErrUnknown where the answer to
	// the commit was lost, so that the change may have been made or not.
	Change(ctx context.Context, what string, do func(Tx) error) error
	Close() error
}

// Tx is one transaction of a DB: rows in, rows out. In a Change, what Image,
// Lease, AddUsage and Append touch stays locked until its end, so that two changes of the
// same image, of the same project's sums, or of the log follow each other; take them
// in this order. A Tx is for one goroutine, and for the time of its function.
type Tx interface {
	// Image is the image of this id, deleted or not; ErrNotFound.
	Image(ctx context.Context, id string) (Image, error)
	// Insert adds an image; ErrExists.
	Insert(ctx context.Context, img Image) error
	// Write replaces old, which Image returned in this transaction, by img.
	Write(ctx context.Context, old, img Image) error
	// Page is the beginning of what q selects: as many images as take maxBytes in memory,
	// see Image.Bytes, and one at least where there is one; more tells that there are more,
	// after q.Limit too. What it holds while it reads is bounded likewise.
	Page(ctx context.Context, q Query, maxBytes int64) (images []Image, more bool, err error)
	// Child is the id of one image, not deleted, whose Parent is the image of this id;
	// "" where there is none.
	Child(ctx context.Context, id string) (string, error)
	// Counts is how many images there are in each status, deleted ones left out.
	Counts(ctx context.Context) (map[Status]int64, error)
	// Stores is how many Locations there are in each store, by its id.
	Stores(ctx context.Context) (map[string]int64, error)

	// Usage is the sums kept for a project.
	Usage(ctx context.Context, project string) (Usage, error)
	// AddUsage adds to the sums kept for a project, and says what they are then.
	AddUsage(ctx context.Context, project string, more Usage) (Usage, error)
	// Quota is a project's own limits; nil where it has none.
	Quota(ctx context.Context, project string) (*Quota, error)
	SetQuota(ctx context.Context, project string, q *Quota) error // nil takes them away

	// Lease is the lease of this kind on id; nil where there is none.
	Lease(ctx context.Context, kind, id string) (*Lease, error)
	// Leases are all of a kind.
	Leases(ctx context.Context, kind string) ([]Lease, error)
	// SetLease writes a lease that ends in that time from now, over the one on the same.
	SetLease(ctx context.Context, l Lease, during time.Duration) error
	// RenewLeases has the leases of these holders end in that time from now, and says
	// which of them there still are.
	RenewLeases(ctx context.Context, holders []string, during time.Duration) (kept []string, err error)
	DropLease(ctx context.Context, kind, id string) error
	// ClearLeases drops those that lapsed that long ago, or longer.
	ClearLeases(ctx context.Context, ago time.Duration) error

	// Append adds an entry to the log of changes and says its number, which is one
	// more than the last one's. Whoever has seen n never later finds a change below it
	// that was not there.
	Append(ctx context.Context, c Change) (Seq, error)
	// Changes are up to limit entries after since, oldest first.
	Changes(ctx context.Context, since Seq, limit int) ([]Change, error)
	LastSeq(ctx context.Context) (Seq, error)
	// Trim takes the entries up to last out of the log.
	Trim(ctx context.Context, last Seq) error
}
