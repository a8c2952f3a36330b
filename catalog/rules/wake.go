package rules

import "sync"

// hub wakes whoever follows the log of changes.
type hub struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next wake
}

// Changed is a channel that is closed at the next change made through these Records, or
// the next Wake. Take it before looking at the log, so that nothing falls between.
func (r *Records) Changed() <-chan struct{} {
	r.changed.mu.Lock()
	defer r.changed.mu.Unlock()
	return r.changed.next
}

// Wake is for changes that others were found to have made.
func (r *Records) Wake() {
	r.changed.mu.Lock()
	defer r.changed.mu.Unlock()
	close(r.changed.next)
	r.changed.next = make(chan struct{})
}
