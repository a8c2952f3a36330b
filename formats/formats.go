// Package formats is the contract for disk formats. A driver (one folder below
// this one) never copies image data. It parses metadata and answers, for a range
// of the guest disk, where the bytes lie: a run of Extents. Package engine turns
// extents into bytes.
//
// Vocabulary. Guest offset: a byte position on the disk the virtual machine
// sees. Host offset: a byte position in a source. Source: the stored.Bytes that
// hold an image, or a part of one. Layout: an opened image's map from guest to
// host. Parent: the disk that shows through where a layout says Absent (qcow2
// calls it the backing file); the engine opens it, a driver only says its name.
// Cluster: the format's unit of allocation and compression (vmdk: grain; vhd, vdi:
// block).
package formats

import (
	"context"
	"errors"
	"fmt"

	"glanced/backends/stored"
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
	ErrWouldWait   = errors.New("the answer needs I/O") // of who asked for one without
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

// Join extends x by next where the two say one thing of adjoining ranges: both
// absent or zero at one depth, data in one piece of one source, or parts of one
// compressed cluster.
func (x *Extent) Join(next *Extent) bool {
	if x.Kind != next.Kind || x.End() != next.Off || x.Depth != next.Depth || x.Src != next.Src {
		return false
	}
	switch x.Kind {
	case Data:
		if x.Pos+x.N != next.Pos {
			return false
		}
		x.N += next.N
	case Compressed:
		if x.Pos != next.Pos || x.N != next.N || x.Codec != next.Codec || x.Full != next.Full || x.Skip+x.Len != next.Skip {
			return false
		}
	}
	x.Len += next.Len
	return true
}

// RefKind says what a reference found inside an image is for.
type RefKind string

const (
	RefBacking  RefKind = "backing file"
	RefDataFile RefKind = "data file"
	RefExtent   RefKind = "extent"
	RefParent   RefKind = "parent"
)

// Ref is a name found inside an image. It is untrusted text: it is shown, and
// handed to who may supply what it stands for, and never opened.
type Ref struct {
	Kind   RefKind `json:"kind"`
	Name   string  `json:"name"`             // as written in the image, valid UTF-8, at most 4 KiB
	Format string  `json:"format,omitempty"` // what the image says the other file is, if it does: a disk_format word
	// Identity is what the image says of the other disk's content (Info.Identity):
	// one that has another was changed, or is not the one. "" = it does not say.
	Identity string `json:"identity,omitempty"`
	// Alternative is another Identity that does as well (vhdx: while a merge into
	// the parent is under way); "" = none.
	Alternative string `json:"alternative_identity,omitempty"`
}

// IsDisk reports whether what the reference stands for is a disk below this one,
// and not a file that holds a part of it.
func (r Ref) IsDisk() bool { return r.Kind == RefBacking || r.Kind == RefParent }

// Files supplies the files that hold a part of an image: what a Ref of the kinds
// RefDataFile and RefExtent stands for. They become the layout's user's
// (Sourcer), and are closed by the driver where Open fails.
type Files func(ctx context.Context, ref Ref) (stored.Bytes, error)

// Open is what f supplies for ref. It fails with ErrReference where f is nil, or
// supplies nothing.
func (f Files) Open(ctx context.Context, ref Ref) (stored.Bytes, error) {
	if f == nil {
		return nil, Unresolved(ref)
	}
	src, err := f(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", ref.Kind, ref.Name, err)
	}
	if src == nil {
		return nil, fmt.Errorf("%w: %s %q is not a file", ErrReference, ref.Kind, ref.Name)
	}
	return src, nil
}

// Unresolved is the ErrReference for a ref that nobody supplies anything for.
func Unresolved(ref Ref) error {
	return fmt.Errorf("%w: %s %q: give it, or flatten the image first (qemu-img convert)", ErrReference, ref.Kind, ref.Name)
}

// Sourcer is an ability of a Layout that has more sources than the image itself (a
// data file, extents): the Src of its extents counts them from 1 on. Whoever
// opened the layout closes them, after it.
type Sourcer interface {
	Sources() []stored.Bytes
}

// Options of Open. The zero value is the active disk of an image in one file.
type Options struct {
	Snapshot string                    // the id, or else the name, of an internal snapshot; "" = the active disk. ErrSnapshot
	Files    Files                     // nil refuses all
	Tables   func(stored.Bytes) Tables // how metadata tables are read; nil: see ReadTable, and nothing is kept
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
	// What it reads, it reads through the Tables of Options.
	Map(ctx context.Context, off, n int64, yield func(Extent) bool) error
	// Info is what Inspect says, with Refused nil. Of its Refs, at most one IsDisk.
	Info() Info
	Close() error
}

// Identical is an ability of a Layout: whether every byte of the disk is the byte at
// the same offset of its source, which has no others. (Holes that are told as Zero
// read as zeros in the source too.)
type Identical interface {
	Identical() bool
}

// Checker is an ability of a Layout that one walk in parts does not show all of:
// Check looks at the whole of the tables at the top of the map. It fails with
// ErrCorrupt where two entries lead to one table, so that few bytes would be many
// terabytes of a disk. Its time grows with the disk, its memory does not: it is for
// who takes an image in, once, and not for who opens it.
type Checker interface {
	Check(ctx context.Context) error
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
	// Hybrid: images of the format may begin with a boot record, which the format
	// leaves room for, and are no polyglots then (iso).
	Hybrid bool
	// Inspect reads metadata only, follows nothing, and says what the image is
	// and whether it may be served. It fails with ErrFormat, or ErrCorrupt where
	// the header makes no sense at all.
	Inspect func(ctx context.Context, src stored.Bytes) (Info, error)
	// Open makes the map, at a cost that does not grow with the disk. It fails with what Inspect reports as Refused, unless
	// references are all there is to it; of those it asks o.Files for the files, and
	// leaves a disk below to the engine.
	Open func(ctx context.Context, src stored.Bytes, o Options) (Layout, error)
}

// ProbeLen is how many leading bytes Probe wants to see.
const ProbeLen = 64 << 10

// TailLen is how many of its last bytes an image is recognised by.
const TailLen = 512
