package cache

import "time"

// houseEvery is how often the free space is looked at when nothing is written.
const houseEvery = 10 * time.Second

// keepHouse frees, until Close, what was given back after it was dropped, and what
// the file system wants back.
func (c *Cache) keepHouse() {
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.life.Done():
			return
		case <-c.kick:
		case <-tick.C:
		}
		c.tidy()
	}
}

func (c *Cache) tidy() {
	c.files.Lock()
	defer c.files.Unlock()
	c.mu.Lock()
	purge := c.purge
	c.purge = nil
	c.mu.Unlock()
	if err := c.remove(purge); err != nil {
		c.fail(err)
	}
	c.heedFloor(0)

	var empty []*object
	c.mu.Lock()
	for _, o := range c.objects {
		if o.recorded && len(o.chunks) == 0 && o.users == 0 && !o.pinned {
			empty = append(empty, o)
		}
	}
	c.mu.Unlock()
	for _, o := range empty {
		// Who opens it meanwhile finds nothing either way.
		if err := o.unrecord(); err != nil {
			c.fail(err)
			continue
		}
		c.mu.Lock()
		if o.users == 0 {
			o.forget()
		}
		c.mu.Unlock()
	}
}
