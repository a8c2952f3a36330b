package spool

// Waiting is how many wait for a fill of key.
func (d *Dir) Waiting(key string) int { return d.fills.Waiting(key) }
