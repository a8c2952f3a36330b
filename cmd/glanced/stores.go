package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"glanced/backends"
	"glanced/backends/all"
	"glanced/catalog"
)

// readStores makes of each [[stores]] table what its type says.
func (c *config) readStores() error {
	var errs []error
	c.Stores = nil
	for i, table := range c.StoreTables {
		name := fmt.Sprintf("stores %d", i+1)
		if id, ok := table["id"].(string); ok && id != "" {
			name = fmt.Sprintf("store %q", id)
		}
		s, err := readStore(table)
		if err == nil {
			err = s.Below(c.below)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		c.Stores = append(c.Stores, s)
	}
	return errors.Join(errs...)
}

// readStore decodes one table: the keys of every store, and those of its type. Which
// these are is known only when the table is read.
func readStore(table map[string]any) (all.Config, error) {
	typ, ok := table["type"].(string)
	if !ok {
		return all.Config{}, fmt.Errorf("type is not set; known are %s", strings.Join(all.Types(), ", "))
	}
	s, err := all.New(typ)
	if err != nil {
		return s, err
	}
	known := s.Keys()
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if !slices.Contains(known, key) {
			return s, fmt.Errorf("unknown key %q; a store of type %s has %s", key, typ, strings.Join(known, ", "))
		}
		// One by one, for an error does not say which it is about.
		if err := setKey(&s, key, table[key]); err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
	}
	return s, nil
}

// setKey decodes one key into the part of s that has it.
func setKey(s *all.Config, key string, value any) error {
	text, err := toml.Marshal(map[string]any{key: value})
	if err != nil {
		return err
	}
	part := s.Own
	if slices.Contains(all.CommonKeys(), key) {
		part = &s.Common
	}
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err = dec.Decode(part)
	var strict *toml.StrictMissingError
	switch {
	case errors.As(err, &strict):
		return fmt.Errorf("unknown key %q", strings.Join(strict.Errors[0].Key(), "."))
	case err != nil:
		return errors.New(goWords.ReplaceAllString(err.Error(), ": $1 is wanted here"))
	}
	return nil
}

func (c *config) checkStores() (errs []error) {
	seen, defaults := map[string]bool{}, 0
	for i, s := range c.Stores {
		switch {
		case s.ID == "":
			errs = append(errs, fmt.Errorf("stores %d: id is not set", i+1))
		case seen[s.ID]:
			errs = append(errs, fmt.Errorf("stores %d: a store called %q is there already", i+1, s.ID))
		}
		seen[s.ID] = true
		if s.Default {
			defaults++
		}
	}
	if len(c.Stores) == 1 {
		c.Stores[0].Default, defaults = true, 1
	}
	if defaults != 1 {
		errs = append(errs, fmt.Errorf("stores: exactly one must have default = true, %d of %d have", defaults, len(c.Stores)))
	}
	return errs
}

// openStore is a store that the catalog has, and what it was opened by.
type openStore struct {
	cfg   all.Config
	files string         // see all.Config.Files
	store backends.Store // as it is to be read, through the cache if it is far
	below backends.Store // as it was opened, and is closed
}

// openStore opens one store, and says what of it cannot be used.
func (d *daemon) openStore(c all.Config) (openStore, error) {
	files := c.Files() // before it is opened: what changes meanwhile is seen later
	s, err := c.Open()
	if err != nil {
		return openStore{}, err
	}
	if part, ok := backends.As[backends.Degrader](s); ok {
		if err := part.Degraded(); err != nil {
			d.log.Error("a part of a store cannot be used; the rest of it goes on", "store", c.ID, "error", err)
		}
	}
	return openStore{c, files, d.throughCache(c, s), s}, nil
}

// entry is the store as the catalog has it.
func (d *daemon) entry(s openStore) catalog.StoreEntry {
	return catalog.StoreEntry{ID: s.cfg.ID, Type: s.cfg.Type, Description: s.cfg.Description, Store: s.store,
		Default: s.cfg.Default, ReadOnly: s.cfg.ReadOnly, Foreign: s.cfg.Foreign(), Weight: s.cfg.Weight}
}

func (d *daemon) entries(stores []openStore) (entries []catalog.StoreEntry) {
	for _, s := range stores {
		entries = append(entries, d.entry(s))
	}
	return entries
}

// openStores opens the configured stores; they are closed with what else the catalog
// stands on.
func (d *daemon) openStores() error {
	for _, c := range d.cfg.Stores {
		s, err := d.openStore(c)
		if err != nil {
			return err
		}
		d.below = append(d.below, s.below)
		d.stores = append(d.stores, s)
	}
	return nil
}

// uploadMemory is what uploads to the stores may hold, bytes: beside the budget, as
// each store's configuration says how much it is.
func (c *config) uploadMemory() (n int64) {
	for _, s := range c.Stores {
		n += s.Memory()
	}
	return n
}
