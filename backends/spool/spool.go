// Package spool keeps what is dear to come by, and came as a stream, as sparse files
// in one folder: one file a key, filled once however many ask for it, there after a
// restart, and bounded in bytes.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends/budget"
	"glanced/backends/flight"
	"glanced/backends/localfile"
	"glanced/backends/stored"
)

// Sentinels; they come wrapped, with the numbers.
var (
	ErrFull    = errors.New("the spool has no room now")            // what is in use there has it
	ErrLimit   = errors.New("the content is larger than the spool") // no waiting helps
	ErrRemoved = errors.New("the content was removed while it was spooled")
)

// Fill writes a content to w, in order. Its ctx ends when nobody waits for the
// content any more, or it was removed.
type Fill func(ctx context.Context, w io.Writer) error

// How the files are called. Others in the folder are left alone, and do not count.
const (
	suffix  = ".disk"
	partial = ".partial-" // begins the name of a file that is being filled
)

var safeKey = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// Dir is a folder of spooled files. Safe for concurrent use; one Dir at a
// time may use a folder, the caller sees to it.
type Dir struct {
	dir   string
	max   int64
	slots *budget.Places                 // one for each fill that runs
	fills flight.Group[string, struct{}] // by key

	mu    sync.Mutex
	files map[string]*file
	used  int64            // allocated bytes: of files, of fills under way, and of removed files still open
	share int64            // what each who may have of them; 0 = no limit
	by    map[string]int64 // what each has of used
}

// file is a filled file.
type file struct {
	key     string
	who     string // whose it is; "" = not known
	bytes   int64  // allocated
	used    time.Time
	open    int
	removed bool
}

// New opens the folder dir, which is made if it is missing, and removes what
// fills left there that were cut off by a crash. maxBytes bounds the allocated
// bytes of all files; where there are more, those least recently used go now. At
// most fills run at a time, others wait.
func New(dir string, maxBytes int64, fills int) (*Dir, error) {
	if maxBytes <= 0 {
		return nil, fmt.Errorf("spool %s: a limit of %d bytes leaves no room: set a positive one", dir, maxBytes)
	}
	if fills <= 0 {
		return nil, fmt.Errorf("spool %s: %d fills at a time are none: set a positive number", dir, fills)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	d := &Dir{dir: dir, max: maxBytes, slots: budget.NewPlaces(fills), files: map[string]*file{}, by: map[string]int64{}}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), partial) {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove what a crash left in the spool: %w", err)
			}
			continue
		}
		key, ours := strings.CutSuffix(e.Name(), suffix)
		if !ours || !safeKey.MatchString(key) || !e.Type().IsRegular() {
			continue
		}
		st, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("read the spool: %w", err)
		}
		d.add(&file{key: key, bytes: allocated(st), used: st.ModTime()})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.evict(0)
	return d, nil
}

func allocated(st os.FileInfo) int64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Blocks * 512
	}
	return st.Size()
}

// Path is the folder.
func (d *Dir) Path() string { return d.dir }

func (d *Dir) path(key string) string { return filepath.Join(d.dir, key+suffix) }

// ShareBytes bounds what each of those that Get is called for may have of the folder;
// 0 = no limit. It is called before the first Get.
func (d *Dir) ShareBytes(n int64) { d.share = n }

// add counts a file in.
func (d *Dir) add(f *file) {
	d.files[f.key] = f
	d.count(f.who, f.bytes)
}

// count adds n bytes, which may be negative, to what is used. d.mu is held.
func (d *Dir) count(who string, n int64) {
	d.used += n
	if d.by[who] += n; d.by[who] == 0 {
		delete(d.by, who)
	}
}

// Get is GetFor nobody in particular: whom no share holds for.
func (d *Dir) Get(ctx context.Context, key string, fill Fill) (stored.Bytes, error) {
	return d.GetFor(ctx, "", key, fill)
}

// GetFor opens the content of key, which is who's, written by fill where there is none.
// key is letters, digits, '.', '_' and '-', at most 200, beginning with a letter or digit.
// All who ask for a key at a time share one fill; it stops when all have left, and never
// runs on when GetFor has returned to the one whose fill it is. Of the fills that run at a
// time each who may have a fair part; see budget.Places. When a fill fails nothing is
// kept, and its error is returned. Beyond the folder's limit, files that are not open make
// room, beyond who's share its own ones, and then a fill fails with ErrFull; one that is
// larger than the whole folder, or who's share, may be fails with ErrLimit. The bytes
// have no identity: what a key stands for is the caller's to know.
func (d *Dir) GetFor(ctx context.Context, who, key string, fill Fill) (stored.Bytes, error) {
	if !safeKey.MatchString(key) {
		return nil, badKey(key)
	}
	for {
		src, err := d.open(who, key)
		if src != nil || err != nil {
			return src, err
		}
		_, err = d.fills.Do(ctx, key, func(ctx context.Context) (struct{}, error) { return struct{}{}, d.fill(ctx, who, key, fill) })
		if err != nil {
			return nil, err
		}
	}
}

func badKey(key string) error { return fmt.Errorf("spool: %q cannot be a file's name", key) }

// open opens the file of key; nil where there is none.
func (d *Dir) open(who, key string) (stored.Bytes, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[key]
	if f == nil {
		return nil, nil
	}
	h, err := os.OpenFile(d.path(key), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) { // removed behind our back
		return nil, d.remove(f)
	}
	if err != nil {
		return nil, fmt.Errorf("open a spooled file: %w", err)
	}
	src, err := localfile.New(h, "")
	if err != nil {
		return nil, err
	}
	if f.who != who && who != "" { // it was there when the folder was opened
		d.count(f.who, -f.bytes)
		f.who = who
		d.count(f.who, f.bytes)
	}
	f.used = time.Now()
	// So that it is known after a restart which were used last; only an order of
	// eviction hangs on it.
	_ = os.Chtimes(h.Name(), time.Time{}, f.used)
	f.open++
	return &opened{File: src, close: sync.OnceValue(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if f.open--; f.open == 0 && f.removed {
			d.count(f.who, -f.bytes)
		}
		return src.Close()
	})}, nil
}

// opened is a spooled file that is in use.
type opened struct {
	*localfile.File
	close func() error
}

// Close implements stored.Bytes.
func (o *opened) Close() error { return o.close() }

// Remove forgets the file of key, if there is one; who has it open reads on. A
// fill under way is ended, and fails with ErrRemoved.
func (d *Dir) Remove(key string) error {
	if !safeKey.MatchString(key) {
		return badKey(key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fills.End(key, ErrRemoved)
	if f := d.files[key]; f != nil {
		return d.remove(f)
	}
	return nil
}

// Keys are those that there is a file for, in no order.
func (d *Dir) Keys() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.files))
}

// remove forgets f. d.mu is held.
func (d *Dir) remove(f *file) error {
	if err := os.Remove(d.path(f.key)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a spooled file: %w", err)
	}
	delete(d.files, f.key)
	f.removed = true
	if f.open == 0 {
		d.count(f.who, -f.bytes)
	}
	return nil
}

// evict removes files that are not open, the least recently used first, until n
// more bytes have room; it reports whether they have. d.mu is held.
func (d *Dir) evict(n int64) bool {
	for d.used > d.max-n {
		if !d.evictOne(func(*file) bool { return true }) {
			return false
		}
	}
	return true
}

// evictOf is evict of who's own files, until n more bytes are within its share.
func (d *Dir) evictOf(who string, n int64) bool {
	for d.share > 0 && who != "" && d.by[who] > d.share-n {
		if !d.evictOne(func(f *file) bool { return f.who == who }) {
			return false
		}
	}
	return true
}

// evictOne removes the file used longest ago of those that are not open and match.
func (d *Dir) evictOne(match func(*file) bool) bool {
	var oldest *file
	for _, f := range d.files {
		if f.open == 0 && match(f) && (oldest == nil || f.used.Before(oldest.used)) {
			oldest = f
		}
	}
	return oldest != nil && d.remove(oldest) == nil
}
