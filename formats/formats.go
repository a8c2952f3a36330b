// Package formats is the contract for disk formats, and the one engine that
// moves their bytes.
//
// A driver (one folder below this one) never copies image data. It parses
// metadata and answers, for a range of the guest disk, where the bytes lie: a
// run of Extents. The engine (Engine, Disk) turns extents into bytes.
//
// Vocabulary. Guest offset: a byte position on the disk the virtual machine
// sees. Host offset: a byte position in a Source. Source: bytes that hold an
// image, or a part of one. Layout: an opened image's map from guest to host.
// Parent: the disk that shows through where a layout says Absent (qcow2 calls
// it the backing file). Cluster: the format's unit of allocation and
// compression (vmdk: grain; vhd, vdi: block).
package formats

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Sentinels of the contract; drivers wrap them with what was found and where.
var (
	ErrFormat      = errors.New("not an image of this format")
	ErrCorrupt     = errors.New("the image is corrupt")
	ErrUnsupported = errors.New("the image uses a feature that cannot be read")
	ErrReference   = errors.New("the image refers to another file")
	ErrEncrypted   = errors.New("the image is encrypted")
	ErrLimit       = errors.New("the image asks for more than the limits allow")
	ErrSnapshot    = errors.New("no such snapshot") // Options.Snapshot: none, or more than one, is so called
	ErrRange       = errors.New("range outside the disk")
	ErrClosed      = errors.New("the disk is closed")
)

// IsRefusal reports whether err is a verdict on an image, which Info.Refused can
// hold, and not a failure to read it.
func IsRefusal(err error) bool {
	for _, verdict := range []error{ErrReference, ErrEncrypted, ErrUnsupported, ErrCorrupt, ErrLimit} {
		if errors.Is(err, verdict) {
			return true
		}
	}
	return false
}

// Source is where a driver and the engine read from: bytes of fixed size that
// do not change while open. backends.Blob has this shape.
type Source interface {
	// ReadAt fills p from off or fails. Safe for concurrent use.
	ReadAt(ctx context.Context, p []byte, off int64) error
	Size() int64 // bytes
	Close() error
}

// FileRanger is an ability of a Source: a local, unchanging file holds its bytes
// [off, off+n) at pos. The engine hands it on, for sendfile and passthrough.
type FileRanger interface {
	FileRange(off, n int64) (f *os.File, pos int64, ok bool)
}

// Extenter is an ability of a Source that knows its own holes (a sparse file):
// yield is called with consecutive runs that cover [off, off+n).
type Extenter interface {
	Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error
}

// Prefetcher is an ability of a Source where bytes are dear to come by: it is told
// of a range that will be read soon. It waits for nothing and may do nothing.
type Prefetcher interface {
	Prefetch(off, n int64)
}

// Kind says how the bytes of an extent come about.
type Kind uint8

const (
	Absent     Kind = iota // not in this layer: ask the parent; zeros where there is none
	Zero                   // reads as zeros, and hides the parent
	Data                   // lies at Pos in Src as it is
	Compressed             // lies at Pos in Src in N compressed bytes
)

// Stored reports whether bytes of a source make it up. What is not, reads as zeros
// in the extents of a Disk, and in those of a Layout unless the parent has it.
func (k Kind) Stored() bool { return k == Data || k == Compressed }

func (k Kind) String() string {
	switch k {
	case Absent:
		return "absent"
	case Zero:
		return "zero"
	case Data:
		return "data"
	case Compressed:
		return "compressed"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Codec names how a Compressed extent's bytes are coded.
type Codec uint8

const (
	NoCodec       Codec = iota
	Deflate             // raw deflate (RFC 1951); qcow2 compression type 0
	Zlib                // RFC 1950
	Zstd                // RFC 8878 frames, perhaps followed by padding; qcow2 compression type 1
	VMDKGrain           // a 12-byte grain marker (LBA, size), then Zlib; VMware Virtual Disk Format 5.0, "stream-optimized"
	VMDKLastGrain       // a VMDKGrain that the disk ends within, and that may decode to more than it has left
)

func (c Codec) String() string {
	switch c {
	case NoCodec:
		return ""
	case Deflate:
		return "deflate"
	case Zlib:
		return "zlib"
	case Zstd:
		return "zstd"
	case VMDKGrain:
		return "vmdk-grain"
	case VMDKLastGrain:
		return "vmdk-last-grain"
	}
	return fmt.Sprintf("Codec(%d)", uint8(c))
}

// Extent says where the bytes of one run of the guest disk lie. All offsets and
// lengths are bytes.
type Extent struct {
	Off, Len int64 // guest range, clipped to what was asked
	Kind     Kind
	Src      int   // which of the layout's sources; never a parent disk
	Pos, N   int64 // host range in that source. Data: N == Len. Compressed: all of the cluster's coded bytes; N may be an upper bound, never past the source's end
	Codec    Codec // Compressed only
	Skip     int64 // Compressed only: the run begins Skip bytes into …
	Full     int64 // … the Full bytes that the cluster decodes to
	Depth    int   // how far down the chain it was found, 0 = this disk; set by the engine
}

// End is the guest offset just past the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// RefKind says what a reference found inside an image is for.
type RefKind string

const (
	RefBacking  RefKind = "backing file"
	RefDataFile RefKind = "data file"
	RefExtent   RefKind = "extent"
	RefParent   RefKind = "parent"
)

// Ref is a name found inside an image. It is untrusted text: it is shown and
// handed to a Resolver, and never opened.
type Ref struct {
	Kind   RefKind `json:"kind"`
	Name   string  `json:"name"`             // as written in the image, valid UTF-8, at most 4 KiB
	Format string  `json:"format,omitempty"` // what the image says the other file is, if it does: a disk_format word
	// Identity is what the image says of the other disk's content (Info.Identity):
	// one that has another was changed, or is not the one. "" = it does not say.
	Identity string `json:"identity,omitempty"`
}

// Resolver supplies what a Ref stands for: a parent Disk (backing file, parent)
// or a Source (data file, extent); exactly one is non-nil on success. A Disk stays
// its giver's; a Source becomes the layout's user's (Sourcer), and is closed by
// the driver where Open fails. A nil Resolver refuses everything with ErrReference.
type Resolver func(ctx context.Context, ref Ref) (*Disk, Source, error)

// Sourcer is an ability of a Layout that asked its Resolver for sources (a data
// file, extents): the Src of its extents counts on into Sources from those that
// were handed to Open. Whoever opened the layout closes them, after it.
type Sourcer interface {
	Sources() []Source
}

// Options of Open. The zero value is the active disk with a private table cache.
type Options struct {
	Snapshot string  // the id, or else the name, of an internal snapshot; "" = the active disk. ErrSnapshot
	Tables   *Tables // shared cache of metadata tables; nil = a small private one
}

// Snapshot is an earlier state of the disk, kept inside its image.
type Snapshot struct {
	ID          string `json:"id"`             // valid UTF-8, as Name
	Name        string `json:"name,omitempty"` // need not be unique
	VirtualSize int64  `json:"virtual_size"`   // bytes
}

// Info describes an image from its metadata alone.
type Info struct {
	Format      string `json:"format"`                 // Glance's disk_format word
	Variant     string `json:"variant,omitempty"`      // "v3, zstd", "streamOptimized"
	VirtualSize int64  `json:"virtual_size"`           // bytes
	ClusterSize int64  `json:"cluster_size,omitempty"` // bytes; 0 = none
	Encrypted   bool   `json:"encrypted,omitempty"`
	Refs        []Ref  `json:"references,omitempty"` // found, never opened
	// Identity names the content, for images made on this one: a vmdk's CID, a
	// vhd's unique id, a vhdx's data write GUID, a vdi's UUID. "" = the format has none.
	Identity  string     `json:"identity,omitempty"`
	Snapshots []Snapshot `json:"snapshots,omitempty"` // disks inside, for Options.Snapshot
	Bitmaps   []string   `json:"bitmaps,omitempty"`   // names of dirty bitmaps; what they say is not read
	// Refused is why Open would refuse this image when its references are not
	// resolved: it wraps ErrReference, ErrEncrypted, ErrUnsupported, ErrCorrupt
	// or ErrLimit. nil = safe to serve.
	Refused error `json:"-"`
}

// Layout is one opened image: its map from guest to host. All methods are safe
// for concurrent use. It does not own the sources.
type Layout interface {
	Size() int64 // virtual size, bytes
	// Map yields the extents of guest range [off, off+n), in order, without gaps
	// or overlaps, clipped to the range, until yield returns false. A range
	// outside the disk is ErrRange. A table entry that makes no sense (past the
	// end of the source, unaligned, reserved bits) is ErrCorrupt, never zeros.
	Map(ctx context.Context, off, n int64, yield func(Extent) bool) error
	Info() Info
	// Parent is the disk that shows through where Map says Absent; nil if none.
	// Its owner is whoever resolved it.
	Parent() *Disk
	Close() error
}

// Driver is one disk format.
type Driver struct {
	Name string // Glance's disk_format word: raw, qcow2, vmdk, …
	// Probe reports whether an image that begins with head (at least ProbeLen
	// bytes, or the whole image) could be of this format. nil: never guessed, only declared.
	Probe func(head []byte) bool
	// ProbeTail reports the same from the last TailLen bytes. It is set only where
	// some images of the format show nothing in their head (fixed vhd); nil elsewhere.
	ProbeTail func(tail []byte) bool
	// Inspect reads metadata only, follows nothing, and says what the image is
	// and whether it may be served. It fails with ErrFormat, or ErrCorrupt where
	// the header makes no sense at all. srcs[0] is the image itself.
	Inspect func(ctx context.Context, srcs []Source) (Info, error)
	// Open makes the map. It fails with what Inspect reports as Refused, and for
	// any reference that r does not resolve.
	Open func(ctx context.Context, srcs []Source, r Resolver, o Options) (Layout, error)
}

// ProbeLen is how many leading bytes Probe wants to see.
const ProbeLen = 64 << 10

// TailLen is how many of its last bytes an image is recognised by.
const TailLen = 512
