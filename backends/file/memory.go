package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// memory remembers the folders of one store by the ids of their markers, in a file
// outside of them. Safe for concurrent use within a process; the folder that it is in
// belongs to one.
type memory struct {
	path string // of the file; "" = nothing is remembered

	mu  sync.Mutex
	ids map[string][]string // by the folder's path, of all that were there, the last one last
	err error               // of the last try to write
}

// openMemory reads what a store of this id remembers in a folder.
func openMemory(dir, store string) (*memory, error) {
	m := &memory{ids: map[string][]string{}}
	if dir == "" {
		return m, nil
	}
	m.path = filepath.Join(dir, url.PathEscape(store)+".json") // one plain name, whatever the id has in it
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m.ids)
	}
	if err != nil {
		return nil, fmt.Errorf("read which folders the store has; remove the file if it is damaged, while all of their disks are mounted: %s: %w", m.path, err)
	}
	return m, nil
}

// keeps tells whether anything is remembered at all.
func (m *memory) keeps() bool { return m.path != "" }

// id is that of the folder at a path; "" = none is known.
func (m *memory) id(root string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last(root)
}

func (m *memory) last(root string) string {
	if all := m.ids[root]; len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// has tells whether a folder of this id is the store's, at whatever path.
func (m *memory) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range m.ids {
		if slices.Contains(all, id) {
			return true
		}
	}
	return false
}

// keep remembers the id of the folder at a path, durably. That it cannot is told by
// trouble: a store whose memory's disk is full is to be usable.
func (m *memory) keep(root, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path == "" || id == "" || m.last(root) == id {
		return
	}
	next := maps.Clone(m.ids)
	next[root] = append(slices.DeleteFunc(slices.Clone(next[root]), func(old string) bool { return old == id }), id)
	if m.err = m.write(next); m.err == nil {
		m.ids = next
	}
}

func (m *memory) trouble() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		return nil
	}
	return fmt.Errorf("cannot remember the store's folders, so one that is not mounted at the next start will not be missed: %w", m.err)
}

func (m *memory) write(ids map[string][]string) error {
	text, err := json.MarshalIndent(ids, "", "\t")
	if err != nil {
		return err
	}
	dir := filepath.Dir(m.path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), m.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
