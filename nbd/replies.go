package nbd

import (
	"sync"
	"sync/atomic"

	"glanced/backends/stored"
)

// segment is a piece of a reply: memory, or a range of a local file. What it holds is
// released when it is written or dropped.
type segment struct {
	mem  []byte
	file stored.FileRange
	buf  *buffer       // that mem is a part of; nil: of none, or of another segment's
	done *atomic.Int64 // what to add to when it is written: guest bytes served
	data int64         // … how much
}

func (s *segment) release() {
	s.buf.release()
	s.file.Release()
}

// outlet writes segments to a connection, in order.
type outlet interface {
	send(segs []segment) error
}

// replies is the one way out of a connection. Any goroutine may push a whole
// reply, and then calls flush: whoever finds nobody writing becomes the writer,
// and writes until the queue is empty, also what others push meanwhile. So
// replies coalesce into one system call when they come fast, no lock is held
// during I/O, and no goroutine is woken just to write.
type replies struct {
	out  outlet
	stop func(error) // told once of the first failure

	mu      sync.Mutex
	changed sync.Cond // the queue was taken, or the writer is done
	queue   []segment
	spare   []segment // the queue's other array
	writing bool
	err     error // first failure: everything after it is dropped
}

func newReplies(out outlet, stop func(error)) *replies {
	r := &replies{out: out, stop: stop}
	r.changed.L = &r.mu
	return r
}

// push adds segments that belong together; nothing comes between them.
func (r *replies) push(segs ...segment) {
	r.mu.Lock()
	if r.err == nil {
		r.queue = append(r.queue, segs...)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	for i := range segs {
		segs[i].release()
	}
}

// flush sees to it that what was pushed gets written: by the caller, or by the
// writer at work.
func (r *replies) flush() {
	r.mu.Lock()
	if r.writing {
		r.mu.Unlock()
		return
	}
	r.writing = true
	for len(r.queue) > 0 {
		segs := r.queue
		r.queue = r.spare[:0]
		r.changed.Broadcast()
		failed := r.err
		r.mu.Unlock()
		if failed == nil {
			failed = r.out.send(segs)
		}
		for i := range segs {
			if failed == nil && segs[i].done != nil {
				segs[i].done.Add(segs[i].data)
			}
			segs[i].release()
		}
		clear(segs)
		r.mu.Lock()
		r.spare = segs
		if failed != nil && r.err == nil {
			r.err = failed
			r.stop(failed)
		}
		r.changed.Broadcast()
	}
	r.writing = false
	r.changed.Broadcast()
	r.mu.Unlock()
}

// alone has write called with the outlet to itself, when the writer at work is done.
// What others push meanwhile is written afterwards. A failure of write is one of the
// connection.
func (r *replies) alone(write func(outlet) error) {
	r.mu.Lock()
	for r.writing {
		r.changed.Wait()
	}
	err := r.err
	r.writing = true
	r.mu.Unlock()
	if err == nil {
		err = write(r.out)
	}
	r.mu.Lock()
	if err != nil && r.err == nil {
		r.err = err
		r.stop(err)
	}
	r.writing = false
	r.changed.Broadcast()
	r.mu.Unlock()
	r.flush()
}

// wait returns when fewer than n segments are queued, or nobody writes. It
// reports the failure that ended writing.
func (r *replies) wait(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.writing && len(r.queue) >= n {
		r.changed.Wait()
	}
	return r.err
}

// drain writes everything pushed so far, and waits until it is written.
func (r *replies) drain() error {
	r.flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.writing {
		r.changed.Wait()
	}
	return r.err
}
