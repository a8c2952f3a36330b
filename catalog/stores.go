package catalog

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"glanced/catalog/stores"
)

type (
	// StoreEntry is one configured store.
	StoreEntry = stores.Entry
	// StoreStep is one thing that a check of a store tried.
	StoreStep = stores.Step
)

// SetStores puts another list of stores in force, of which exactly one is the default
// one. An upload that is under way, and what is open, stays with the store that it
// began with; so a store that is no longer in the list, or there in another's place, is
// closed after the catalog only. Nothing changes where the list is wrong.
func (c *Catalog) SetStores(entries []StoreEntry) error {
	if err := c.stores.Replace(entries); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// Stores lists the configured stores, in their order.
func (c *Catalog) Stores() []StoreEntry { return c.stores.All() }

// CheckStore tries a store, and says step by step what works: it writes a small
// object, reads it and deletes it; of a read-only one, it reads from an image that
// lies there. See stores.Set.Check. ErrUnknownStore.
func (c *Catalog) CheckStore(ctx context.Context, id string) ([]StoreStep, error) {
	return c.stores.Check(ctx, id, func(ctx context.Context) iter.Seq2[Image, error] {
		return c.Walk(ctx, Query{Scope: Everything, Status: []Status{Active}})
	})
}

// unknownStores logs which stores hold images and are not configured.
func (c *Catalog) unknownStores(ctx context.Context) error {
	counts, err := c.records.Stores(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		if _, ok := c.stores.Find(id); !ok {
			c.log.Error("images lie in a store that is not in the configuration: what lies nowhere else cannot be read", "store", id, "locations", counts[id])
		}
	}
	return nil
}
