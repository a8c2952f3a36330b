package spool

// Waiting is how many wait for a fill of key.
func (d *Dir) Waiting(key string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if under := d.fills[key]; under != nil {
		return under.waiting
	}
	return 0
}
