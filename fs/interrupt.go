package fs

import (
	"context"
	"sync"
	"time"
)

// interruptGrace is how long a request that its caller's signal interrupted may
// still take. The kernel interrupts a request for any signal, a Go program's
// preemption and a child's SIGCHLD included, and programs do not expect EINTR
// from a file; so a request ends early only when it would keep a killed process
// waiting for long.
const interruptGrace = time.Second

// patient is a request's context whose end comes interruptGrace after the
// kernel's interrupt. It costs a goroutine only when somebody asks for Done,
// which reads of local files do not.
type patient struct {
	context.Context // the request's: done once the kernel interrupts it

	start    sync.Once
	done     chan struct{} // closed when the grace is over
	released chan struct{} // closed when the request was answered
}

// patiently wraps the context of a FUSE request; release must be called before
// the request is answered.
func patiently(ctx context.Context) *patient {
	return &patient{Context: ctx, done: make(chan struct{}), released: make(chan struct{})}
}

func (p *patient) release() { close(p.released) }

// Done is closed when the interrupted request has to end.
func (p *patient) Done() <-chan struct{} {
	p.start.Do(func() { go p.wait() })
	return p.done
}

func (p *patient) wait() {
	select {
	case <-p.Context.Done():
	case <-p.released:
		return
	}
	grace := time.NewTimer(interruptGrace)
	defer grace.Stop()
	select {
	case <-grace.C:
		close(p.done)
	case <-p.released:
	}
}

// Err is context.Canceled once Done is closed.
func (p *patient) Err() error {
	select {
	case <-p.done:
		return context.Canceled
	default:
		return nil
	}
}
