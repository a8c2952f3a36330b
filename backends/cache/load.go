package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

var folderName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// load makes the index of what an earlier life left, from the files of sums alone.
// What makes no sense is removed, if it is ours; what is not ours is left alone.
func (c *Cache) load() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("read the cache folder: %w", err)
	}
	c.files.Lock()
	defer c.files.Unlock()
	type found struct {
		o       *object
		records []foundRecord
		written time.Time
	}
	var all []found
	for _, e := range entries {
		if !e.IsDir() || !folderName.MatchString(e.Name()) {
			continue
		}
		o, records, written, err := c.loadObject(e.Name())
		if err != nil {
			c.log.Info("a folder of the cache is of no use and is removed", "folder", e.Name(), "why", err)
			stale := &object{c: c, dir: filepath.Join(c.dir, e.Name())}
			if err := stale.unrecord(); err != nil {
				c.log.Warn("cannot remove it", "folder", e.Name(), "error", err)
			}
			continue
		}
		all = append(all, found{o, records, written})
	}
	// What was written last is evicted last: of uses nothing is known.
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.written.UnixNano(), b.written.UnixNano()) })
	c.mu.Lock()
	for _, x := range all {
		c.objects[x.o.id] = x.o
		if x.o.place != "" {
			c.places[x.o.place] = x.o
		}
		c.used += x.o.sums
		for _, r := range x.records {
			x.o.add(r.i, r.sum, false, false)
			c.used += x.o.allocated(r.i)
		}
	}
	c.mu.Unlock()
	for _, x := range all {
		x.o.trim()
	}
	if err := c.evict(c.victims(c.cfg.Size)); err != nil {
		c.log.Warn("cannot make the cache as small as it is configured", "error", err)
	}
	return nil
}

type foundRecord struct{ i, sum uint32 }

func (c *Cache) loadObject(name string) (*object, []foundRecord, time.Time, error) {
	none := func(err error) (*object, []foundRecord, time.Time, error) { return nil, nil, time.Time{}, err }
	f, err := os.Open(filepath.Join(c.dir, name, sumsName))
	if err != nil {
		return none(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return none(err)
	}
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return none(fmt.Errorf("its sums: %w", err))
	}
	h, err := parseHeader(b)
	if err != nil {
		return none(err)
	}
	if h.chunk != c.cfg.ChunkSize || folderOf(h.id) != name {
		return none(fmt.Errorf("it has chunks of %d bytes, or is of another object", h.chunk))
	}
	if data, err := os.Stat(filepath.Join(c.dir, name, dataName)); err != nil || !data.Mode().IsRegular() || data.Size() != h.size {
		return none(fmt.Errorf("its data is missing, or not of %d bytes", h.size))
	}
	o := c.newObject(h.id, h.size)
	o.place, o.recorded, o.sums = h.place, true, allocatedOf(f)
	if _, err := os.Lstat(filepath.Join(o.dir, pinName)); err == nil {
		o.pinned = true
	}
	records, err := o.loadRecords(f, st.Size())
	if err != nil {
		return none(err)
	}
	return o, records, st.ModTime(), nil
}

// loadRecords reads what of a file of sums is no hole.
func (o *object) loadRecords(f *os.File, size int64) (records []foundRecord, err error) {
	size = min(size, recordAt(o.n-1)+recordSize)
	buf := make([]byte, 64<<10)
	for at := int64(headerSize); at < size; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			return records, nil
		case err == nil:
			at = max(at, data&^(block-1))
		}
		p := buf[:min(int64(len(buf)), size-at)]
		n, err := f.ReadAt(p, at)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("its sums: %w", err)
		}
		if n < recordSize {
			break
		}
		parseRecords(o.base, uint32((at-headerSize)/recordSize), p[:n], func(i, sum uint32) {
			records = append(records, foundRecord{i, sum})
		})
		at += int64(n / recordSize * recordSize)
	}
	return records, nil
}

// trim frees what a crash left of chunks that have no record. Cache.files is held.
func (o *object) trim() {
	o.c.mu.Lock()
	expected := o.bytes
	here := make([]uint32, 0, len(o.chunks))
	for i := range o.chunks {
		here = append(here, i)
	}
	o.c.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(o.dir, dataName), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if allocatedOf(f) <= expected {
		return
	}
	slices.Sort(here)
	at := int64(0)
	for _, i := range append(here, o.n) {
		end := o.start(i)
		if i == o.n {
			end = (o.size + block - 1) &^ (block - 1)
		}
		if end > at {
			punch(f, at, end-at) // as well as can be: what it takes is little
		}
		at = o.start(i + 1)
	}
}
