// Package disks is the images that are open: each once, by whomever it is read, and
// withdrawn from whoever loses the right to read it. It reads records and stores, and
// changes neither, but for what it learns of the version of bytes.
package disks

import (
	"errors"
	"log/slog"
	"sync"

	"glanced/catalog/rules"
	"glanced/catalog/stores"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/engine"
)

// Sentinels; they come wrapped, with the image and what was wrong.
var (
	ErrStoredOnly        = errors.New("the image has no readable guest disk")
	ErrNoSnapshot        = errors.New("no such snapshot")
	ErrNoData            = errors.New("the image has no data yet")
	ErrDeactivated       = errors.New("the image is deactivated")
	ErrParentDeactivated = errors.New("the image stands on a deactivated one of another project")
	ErrSpoolFull         = errors.New("there is no room now to decompress the image")
	ErrRevoked           = errors.New("the image was withdrawn")
)

// Config of an Opener. What it names is not closed.
type Config struct {
	Records    *rules.Records
	Stores     *stores.Set
	Drivers    []formats.Driver // one of them raw
	Containers []container.Container
	Spool      Spool // nil = containers that are to be decompressed do not open
	Engine     *engine.Engine
	MaxBytes   int64 // what a container may decompress to
	Log        *slog.Logger
}

// Opener opens images, and has all that are open. Safe for concurrent use.
type Opener struct {
	records    *rules.Records
	stores     *stores.Set
	drivers    []formats.Driver
	containers []container.Container
	spool      Spool
	raw        formats.Driver
	engine     *engine.Engine
	maxBytes   int64
	log        *slog.Logger

	disks     table
	handles   handles
	changed   changed
	answering sync.Map // of *replicas.Place, by store: those that images with several locations are read from
}

// New is an Opener that has nothing open. It fails where the drivers lack raw.
func New(cfg Config) (*Opener, error) {
	raw, ok := formats.Find(cfg.Drivers, "raw")
	if !ok {
		return nil, errors.New("the drivers lack raw, which reads images as they are stored")
	}
	o := &Opener{records: cfg.Records, stores: cfg.Stores, drivers: cfg.Drivers, containers: cfg.Containers, spool: cfg.Spool,
		raw: raw, engine: cfg.Engine, maxBytes: cfg.MaxBytes, log: cfg.Log}
	o.disks.byKey = map[diskKey]*disk{}
	o.handles.init()
	o.changed.places = map[changedPlace]struct{}{}
	return o, nil
}
