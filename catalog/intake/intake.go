// Package intake takes images in: a client's upload, or data that lies where others keep
// it. It has an image's bytes stored, hashed and looked at, and moves its record from
// queued to active, or back; what a daemon has left that was cut off in between, it
// cleans up.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"glanced/backends/budget"
	"glanced/catalog/disks"
	"glanced/catalog/leases"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
	"glanced/formats"
	"glanced/formats/container"
)

// Sentinels; they come wrapped, with what was wrong.
var (
	ErrFormat   = errors.New("the content does not match the disk format")
	ErrUnsafe   = errors.New("the content is not safe to use")
	ErrGone     = errors.New("the image was deleted while its data was uploaded")
	ErrTooLarge = errors.New("the image is larger than this service takes")
	ErrUploads  = errors.New("too many uploads are under way")
	ErrBodySize = errors.New("the data is not as long as announced")
	ErrBody     = errors.New("the upload was cut off")
	ErrLocation = errors.New("the location cannot be used")
	ErrClosing  = errors.New("the service is shutting down")
)

// Config of an Intake. What it names is not closed.
type Config struct {
	Records      *rules.Records
	Stores       *stores.Set
	Leases       *leases.Keeper // it is to run while images are taken in
	Disks        *disks.Opener
	Drivers      []formats.Driver
	Containers   []container.Container // those that are opened
	FailedUpload records.Status        // what a failed upload leaves: Queued ("" too) or Killed
	SizeCap      int64                 // largest image, bytes
	Memory       *budget.Budget        // for uploads, besides the UploadBytes that each takes; nil = one of 64 MiB
	Uploads      int64                 // memory for uploads under way, bytes: one for each UploadBytes, two at least; 0 = 64 MiB
	UploadWait   time.Duration         // how long an upload waits for its turn; 0 = half a minute
	HashPause    time.Duration         // before an image is hashed again whose data could not be read; 0 = a minute
	Log          *slog.Logger
}

const (
	uploadMemory = 64 << 20         // Config.Memory and Config.Uploads where they are not set, bytes
	uploadWait   = 30 * time.Second // Config.UploadWait likewise
)

// Intake takes images in. Safe for concurrent use.
type Intake struct {
	records      *rules.Records
	stores       *stores.Set
	leases       *leases.Keeper
	disks        *disks.Opener
	drivers      []formats.Driver
	containers   []container.Container
	failedUpload records.Status
	sizeCap      int64
	memory       *budget.Budget
	places       *budget.Places // of uploads under way, by project
	uploadWait   time.Duration
	log          *slog.Logger

	hashing hashing

	mu      sync.Mutex
	uploads map[string]context.CancelCauseFunc // under way here, by image id
	aborted map[string]aborted                 // failed ones that could not be written yet
	closing bool                               // no more of them
	closed  chan struct{}                      // closed with closing
	ending  sync.WaitGroup                     // counts them
}

// New checks cfg.
func New(cfg Config) (*Intake, error) {
	in := &Intake{
		records:      cfg.Records,
		stores:       cfg.Stores,
		leases:       cfg.Leases,
		disks:        cfg.Disks,
		drivers:      cfg.Drivers,
		containers:   cfg.Containers,
		failedUpload: cfg.FailedUpload,
		sizeCap:      cfg.SizeCap,
		memory:       cfg.Memory,
		uploadWait:   cfg.UploadWait,
		log:          cfg.Log,
		uploads:      map[string]context.CancelCauseFunc{},
		aborted:      map[string]aborted{},
		closed:       make(chan struct{}),
	}
	if in.failedUpload == "" {
		in.failedUpload = records.Queued
	}
	if in.failedUpload != records.Queued && in.failedUpload != records.Killed {
		return nil, fmt.Errorf("a failed upload can leave an image queued or killed, not %q", in.failedUpload)
	}
	if in.memory == nil {
		in.memory = budget.New(uploadMemory)
	}
	if cfg.Uploads == 0 {
		cfg.Uploads = uploadMemory
	}
	in.places = budget.NewPlaces(int(max(cfg.Uploads/UploadBytes, 2)))
	if in.uploadWait == 0 {
		in.uploadWait = uploadWait
	}
	in.hashing.init(cfg.HashPause)
	return in, nil
}
