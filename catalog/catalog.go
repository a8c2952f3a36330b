// Package catalog is what an image service knows: the door to all images. It creates,
// lists, changes and deletes their records, tells of changes, and wires the rooms that do
// the rest: stores, the configured ones; leases, those of this daemon; disks, what is
// open; intake, taking images in. It knows no protocol.
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
	"time"

	"glanced/backends/budget"
	"glanced/catalog/disks"
	"glanced/catalog/intake"
	"glanced/catalog/leases"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
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
	Lease        time.Duration  // of a daemon that is silent so long, others take over its uploads; 0 = leases.Default
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
	records *rules.Records
	stores  *stores.Set
	leases  *leases.Keeper
	disks   *disks.Opener
	intake  *intake.Intake
	log     *slog.Logger

	stop context.CancelFunc
	done chan struct{} // closed when all that runs in the background has ended
}

// New checks cfg, sweeps what this node's last run left behind (uploads cut off
// go back to queued, half stored and deleted bytes are removed), and starts to
// follow the log of changes. Close it after its doors.
func New(ctx context.Context, cfg Config) (*Catalog, error) {
	c, err := build(cfg)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	since, err := c.records.LastSeq(ctx)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := c.leases.Enter(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := errors.Join(c.sweep(ctx), c.disks.SweepSpool(ctx)); err != nil {
		return nil, fmt.Errorf("catalog: sweep after the last run: %w", err)
	}
	if err := c.unknownStores(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := c.intake.Resume(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	go func() {
		defer close(c.done)
		var all sync.WaitGroup
		all.Go(func() { c.intake.Run(run) })
		all.Go(func() { c.leases.Run(run) })
		all.Go(func() { c.tidy(run) })
		c.follow(run, since)
		all.Wait()
	}()
	return c, nil
}

// build makes the rooms of a Catalog, of which nothing runs yet.
func build(cfg Config) (c *Catalog, err error) {
	c = &Catalog{
		records: rules.New(cfg.Records, rules.Options{DefaultQuota: cfg.DefaultQuota, ChangeLog: cfg.ChangeLog}),
		log:     cfg.Log,
		done:    make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.SizeCap == 0 {
		cfg.SizeCap = DefaultSizeCap
	}
	if c.stores, err = stores.NewSet(cfg.Stores); err != nil {
		return nil, err
	}
	c.leases = leases.New(c.records, leases.Options{Node: cfg.Node, Shared: cfg.Shared, During: cfg.Lease, Log: c.log})
	c.disks, err = disks.New(disks.Config{Records: c.records, Stores: c.stores, Drivers: cfg.Drivers, Containers: cfg.Containers,
		Spool: cfg.Spool, Engine: cfg.Engine, MaxBytes: cfg.SizeCap, Log: c.log})
	if err != nil {
		return nil, err
	}
	c.intake, err = intake.New(intake.Config{Records: c.records, Stores: c.stores, Leases: c.leases, Disks: c.disks,
		Drivers: cfg.Drivers, Containers: cfg.Containers, FailedUpload: cfg.FailedUpload, SizeCap: cfg.SizeCap,
		Memory: cfg.Memory, Uploads: cfg.Uploads, UploadWait: cfg.UploadWait, HashPause: cfg.HashPause, Log: c.log})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// closeTime is how long Close waits for uploads to clean up after themselves.
const closeTime = 3 * time.Second

// Close ends the uploads under way (they fail with ErrClosing and leave nothing)
// and waits for them, but not for ever: what hangs in a store is left to the sweep
// of the next New, and Close says so. Then it stops hashing, which the next New
// goes on with, and following the log of changes, and ends every Watch. The doors have closed their handles before.
func (c *Catalog) Close() error {
	err := c.intake.Close(closeTime)
	if err != nil {
		err = fmt.Errorf("catalog: %w", err)
	}
	c.stop()
	<-c.done
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	c.leases.Leave(ctx)
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
