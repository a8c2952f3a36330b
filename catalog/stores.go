package catalog

import (
	"fmt"
	"slices"
)

// SetStores puts another list of stores in force, of which exactly one is the default
// one. An upload that is under way, and what is open, stays with the store that it
// began with; so a store that is no longer in the list, or there in another's place, is
// closed after the catalog only. Nothing changes where the list is wrong.
func (c *Catalog) SetStores(stores []StoreEntry) error {
	if err := checkStores(stores); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	stores = slices.Clone(stores)
	c.stores.Store(&stores)
	return nil
}

func checkStores(stores []StoreEntry) error {
	defaults := 0
	for i, s := range stores {
		if s.Store == nil || s.ID == "" {
			return fmt.Errorf("store %d has no id, or was not opened", i)
		}
		if slices.ContainsFunc(stores[:i], func(o StoreEntry) bool { return o.ID == s.ID }) {
			return fmt.Errorf("two stores are called %q", s.ID)
		}
		if s.Default {
			defaults++
		}
	}
	if defaults != 1 {
		return fmt.Errorf("%d of %d stores are the default one; exactly one must be", defaults, len(stores))
	}
	return nil
}

// Stores lists the configured stores, in their order.
func (c *Catalog) Stores() []StoreEntry { return slices.Clone(*c.stores.Load()) }

// store finds a configured store; "" is the default one.
func (c *Catalog) store(id string) (StoreEntry, error) {
	for _, s := range *c.stores.Load() {
		if s.ID == id || id == "" && s.Default {
			return s, nil
		}
	}
	return StoreEntry{}, fmt.Errorf("%w: %q", ErrUnknownStore, id)
}

// configured finds a store by its id.
func (c *Catalog) configured(id string) (StoreEntry, bool) {
	for _, s := range *c.stores.Load() {
		if s.ID == id {
			return s, true
		}
	}
	return StoreEntry{}, false
}
