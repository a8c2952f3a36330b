package intake

import (
	"fmt"

	"glanced/catalog/records"
	"glanced/formats"
)

// recogniser looks at the content of an upload while it streams by: its head and its
// tail must be of the declared format, and of no other.
type recogniser struct {
	drivers  []formats.Driver
	declared string
	head     []byte // the first formats.ProbeLen bytes, until they have been looked at
	found    string // what they show (formats.Detect); "" = they have not been
	tail     []byte // the last formats.TailLen bytes so far
}

// recogniser is one for the content of img; nil where that may be anything. A
// declared raw is never looked into.
func (in *Intake) recogniser(img records.Image) *recogniser {
	if !inspected(img) || *img.DiskFormat == "raw" {
		return nil
	}
	return &recogniser{drivers: in.drivers, declared: *img.DiskFormat}
}

// write takes the next bytes. It says ErrFormat as soon as they show that the content
// is not of the declared format, or of another one too; last: none follow.
func (r *recogniser) write(p []byte, last bool) error {
	if r == nil {
		return nil
	}
	r.tail = lastOf(r.tail, p, formats.TailLen)
	if r.found == "" {
		r.head = append(r.head, p[:min(len(p), formats.ProbeLen-len(r.head))]...)
		if len(r.head) < formats.ProbeLen && !last || len(r.head) == 0 {
			return nil
		}
		found, err := formats.Detect(r.drivers, r.head)
		if err := r.judge(found, err, false); err != nil {
			return err
		}
		r.found, r.head = found, nil
	}
	if !last {
		return nil
	}
	found, err := formats.DetectTail(r.drivers, r.found, r.tail)
	return r.judge(found, err, true)
}

// judge says ErrFormat where what was found, if nothing failed with err, is not what
// was declared; whole: the tail was looked at too.
func (r *recogniser) judge(found string, err error, whole bool) error {
	if err != nil {
		return fmt.Errorf("%w: declared %s: %w", ErrFormat, r.declared, err)
	}
	if found == r.declared {
		return nil
	}
	if found != "raw" {
		return fmt.Errorf("%w: declared %s, found %s", ErrFormat, r.declared, found)
	}
	driver, known := formats.Find(r.drivers, r.declared)
	if !known || driver.Probe == nil || driver.ProbeTail != nil && !whole {
		return nil // nobody can tell, or not yet
	}
	return fmt.Errorf("%w: declared %s, which it is not", ErrFormat, r.declared)
}

// lastOf is the last n bytes of tail and p, in tail's room where they fit.
func lastOf(tail, p []byte, n int) []byte {
	if over := len(tail) + len(p) - n; over > 0 {
		tail = tail[:copy(tail, tail[min(over, len(tail)):])]
	}
	return append(tail, p[max(0, len(p)-n):]...)
}
