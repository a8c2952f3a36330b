// Package catalog is what an image service knows: images, their status machine,
// quotas and changes; and it is where records, backends and formats meet: taking
// an image in, opening it, retiring it. It knows no protocol.
//
// Vocabulary: the stored bytes are what was uploaded; the guest disk is the disk
// decoded from them. An image can be stored only: its bytes can be read, but it
// has no guest disk, and DiskError says why.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"glanced/backends"
	"glanced/backends/budget"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/engine"
)

// The words of catalog/records, so that doors need not import it.
type (
	Image       = records.Image
	Query       = records.Query
	Scope       = records.Scope
	SortKey     = records.SortKey
	Compare     = records.Compare
	Status      = records.Status
	Change      = records.Change
	ChangeKind  = records.ChangeKind
	Seq         = records.Seq
	Quota       = records.Quota
	Usage       = records.Usage
	Location    = records.Location
	Claim       = records.Claim
	Parent      = records.Parent
	Snapshot    = records.Snapshot
	StatusError = records.StatusError
	QuotaError  = records.QuotaError
)

// Everything is the scope of every image.
var Everything = records.Everything

const (
	Queued        = records.Queued
	Saving        = records.Saving
	Uploading     = records.Uploading
	Importing     = records.Importing
	Active        = records.Active
	Deactivated   = records.Deactivated
	Killed        = records.Killed
	Deleted       = records.Deleted
	PendingDelete = records.PendingDelete

	Created = records.Created
	Updated = records.Updated
	Removed = records.Removed
)

// DefaultSizeCap is the largest image taken in where Config does not say: 1 TiB,
// Glance's image_size_cap.
const DefaultSizeCap = 1 << 40

// StoreEntry is one configured store.
type StoreEntry struct {
	ID, Type, Description string
	Store                 backends.Store
	Default, ReadOnly     bool // ReadOnly: no uploads, and images that lie there are not deleted
	Foreign               bool // others keep its objects: no uploads, locations can be registered, and deletions leave the bytes
	Weight                int  // of several locations of an image, that in the store of the greatest weight is read first
}

// Config of a Catalog. What it names is not closed by Close.
type Config struct {
	Records      records.DB
	DefaultQuota Quota        // of projects without their own
	ChangeLog    int64        // entries of the log of changes to keep at least; 0 = 65536
	Stores       []StoreEntry // exactly one Default
	Drivers      []formats.Driver
	Containers   []container.Container // those that are opened; others hold the bytes of a disk image as they are
	Spool        Spool                 // of compressed containers; nil = they are stored only
	Engine       *engine.Engine
	Node         string         // stable name of this daemon; its unfinished uploads are swept at the next New
	Shared       bool           // other daemons may use the same records
	Lease        time.Duration  // of a daemon that is silent so long, others take over its uploads; 0 = DefaultLease
	FailedUpload Status         // what a failed upload leaves: Queued (default) or Killed
	SizeCap      int64          // largest image, bytes; 0 = DefaultSizeCap
	Memory       *budget.Budget // for uploads, besides the UploadBytes that each takes; nil = one of 64 MiB
	Uploads      int64          // memory for uploads under way, bytes: one for each UploadBytes, two at least; 0 = 64 MiB
	UploadWait   time.Duration  // how long an upload waits for its turn; 0 = half a minute
	HashPause    time.Duration  // before an image is hashed again whose data could not be read; 0 = a minute
	Log          *slog.Logger   // nil = none
}

// Catalog is the door to all images. Safe for concurrent use.
type Catalog struct {
	records      *rules.Records
	stores       atomic.Pointer[[]StoreEntry] // see SetStores
	drivers      []formats.Driver
	containers   []container.Container
	spool        Spool
	raw          formats.Driver
	engine       *engine.Engine
	node         string
	shared       bool
	lease        time.Duration
	presence     records.Lease // that this daemon runs
	failedUpload Status
	sizeCap      int64
	uploadMemory *budget.Budget
	places       *budget.Places // of uploads under way, by project
	uploadWait   time.Duration
	log          *slog.Logger

	disks   disks
	handles handles
	changes hub
	changed changed
	hashing hashing
	leases  leases

	mu      sync.Mutex
	uploads map[string]context.CancelCauseFunc // under way here, by image id
	aborted map[string]aborted                 // failed ones that could not be written yet
	closing bool                               // no more of them
	closed  chan struct{}                      // closed with closing
	ending  sync.WaitGroup                     // counts them

	stop context.CancelFunc
	done chan struct{} // closed when the watcher and the hashers have ended
}

// New checks cfg, sweeps what this node's last run left behind (uploads cut off
// go back to queued, half stored and deleted bytes are removed), and starts to
// follow the log of changes. Close it after its doors.
func New(ctx context.Context, cfg Config) (*Catalog, error) {
	c := &Catalog{
		records:      rules.New(cfg.Records, rules.Options{DefaultQuota: cfg.DefaultQuota, ChangeLog: cfg.ChangeLog}),
		drivers:      cfg.Drivers,
		containers:   cfg.Containers,
		spool:        cfg.Spool,
		engine:       cfg.Engine,
		node:         cfg.Node,
		shared:       cfg.Shared,
		lease:        cfg.Lease,
		presence:     rules.NewLease(records.NodeLease, cfg.Node, cfg.Node),
		leases:       leases{held: map[string]func(context.Context){}},
		failedUpload: cfg.FailedUpload,
		sizeCap:      cfg.SizeCap,
		uploadMemory: cfg.Memory,
		log:          cfg.Log,
		uploads:      map[string]context.CancelCauseFunc{},
		aborted:      map[string]aborted{},
		closed:       make(chan struct{}),
		done:         make(chan struct{}),
	}
	if c.failedUpload == "" {
		c.failedUpload = Queued
	}
	if c.uploadMemory == nil {
		c.uploadMemory = budget.New(64 << 20)
	}
	if c.lease == 0 {
		c.lease = DefaultLease
	}
	if cfg.Uploads == 0 {
		cfg.Uploads = 64 << 20
	}
	c.places = budget.NewPlaces(int(max(cfg.Uploads/UploadBytes, 2)))
	if c.uploadWait = cfg.UploadWait; c.uploadWait == 0 {
		c.uploadWait = uploadWait
	}
	if c.sizeCap == 0 {
		c.sizeCap = DefaultSizeCap
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	var ok bool
	if c.raw, ok = formats.Find(cfg.Drivers, "raw"); !ok {
		return nil, errors.New("catalog: the drivers lack raw, which reads images as they are stored")
	}
	if c.failedUpload != Queued && c.failedUpload != Killed {
		return nil, fmt.Errorf("catalog: a failed upload can leave an image queued or killed, not %q", c.failedUpload)
	}
	if err := c.SetStores(cfg.Stores); err != nil {
		return nil, err
	}
	c.disks.init()
	c.handles.init()
	c.changes.init()
	c.changed.places = map[changedPlace]struct{}{}
	since, err := c.records.LastSeq(ctx)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := c.enter(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := errors.Join(c.sweep(ctx), c.sweepSpool(ctx)); err != nil {
		return nil, fmt.Errorf("catalog: sweep after the last run: %w", err)
	}
	if err := c.unknownStores(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c.hashing.init(cfg.HashPause)
	if err := c.resumeHashing(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	go func() {
		defer close(c.done)
		var all sync.WaitGroup
		for range hashers {
			all.Go(func() { c.hashOn(run) })
		}
		all.Go(func() { c.tend(run) })
		all.Go(func() { c.tidy(run) })
		c.follow(run, since)
		all.Wait()
	}()
	return c, nil
}

// closeTime is how long Close waits for uploads to clean up after themselves.
const closeTime = 3 * time.Second

// Close ends the uploads under way (they fail with ErrClosing and leave nothing)
// and waits for them, but not for ever: what hangs in a store is left to the sweep
// of the next New, and Close says so. Then it stops hashing, which the next New
// goes on with, and following the log of changes, and ends every Watch. The doors have closed their handles before.
func (c *Catalog) Close() error {
	err := c.endUploads()
	c.stop()
	<-c.done
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	c.leave(ctx)
	return err
}

// Counts is how many images there are in each status, deleted ones left out.
func (c *Catalog) Counts(ctx context.Context) (map[Status]int64, error) { return c.records.Counts(ctx) }

// Quota is what project may have and what it has; own tells whether the limits
// are its own or the default ones.
func (c *Catalog) Quota(ctx context.Context, project string) (q Quota, u Usage, own bool, err error) {
	if q, own, err = c.records.Quota(ctx, project); err != nil {
		return q, u, own, err
	}
	u, err = c.records.Usage(ctx, project)
	return q, u, own, err
}

// SetQuota gives project its own limits; nil takes them away again. Images that
// are there already stay, however low the limits are.
func (c *Catalog) SetQuota(ctx context.Context, project string, q *Quota) error {
	if q != nil && (q.ImageCountTotal < 0 || q.ImageSizeTotal < 0) {
		return fmt.Errorf("%w: a quota is 0 (no limit) or more", ErrInvalid)
	}
	return c.records.SetQuota(ctx, project, q)
}
