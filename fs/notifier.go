package fs

import (
	"context"
	"slices"
	"sync"
)

// note says what became of one image, for the kernel.
type note struct {
	id      string
	shift   shift
	content []string // what its folder holds now; empty when the image is gone
}

// notifier tells the kernel what to forget. A notification can wait for a
// directory that a FUSE request has locked, so it is sent from a goroutine no
// request ever waits for. What the kernel does not remember needs no note:
// names that were not found are never cached.
type notifier struct {
	t *tree

	mu    sync.Mutex
	queue []note
	some  chan struct{} // holds a token while the queue may be non-empty
}

func newNotifier(t *tree) *notifier {
	return &notifier{t: t, some: make(chan struct{}, 1)}
}

// add queues a note; it does not wait.
func (n *notifier) add(x note) {
	n.mu.Lock()
	n.queue = append(n.queue, x)
	n.mu.Unlock()
	select {
	case n.some <- struct{}{}:
	default:
	}
}

// run delivers notes until ctx ends.
func (n *notifier) run(ctx context.Context) {
	for {
		select {
		case <-n.some:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		queue := n.queue
		n.queue = nil
		n.mu.Unlock()
		for _, x := range queue {
			if ctx.Err() != nil {
				return
			}
			n.deliver(x)
		}
	}
}

// attributesOnly, as the offset of a content notification, leaves the pages: an
// image's content cannot change, and openFile takes them back when it is withdrawn.
const attributesOnly = -1

// deliver makes the kernel forget what x made untrue. The errors do not matter:
// the kernel did not know the name, or the mount is gone.
func (n *notifier) deliver(x note) {
	images, byName := n.t.root.images, n.t.root.byName
	for _, name := range x.shift.links {
		byName.NotifyEntry(name)
	}
	if x.shift.listed || len(x.shift.links) > 0 {
		images.NotifyContent(attributesOnly, 0)
		byName.NotifyContent(attributesOnly, 0)
	}
	folder := images.GetChild(x.id)
	if folder == nil {
		return
	}
	for name, child := range folder.Children() {
		if slices.Contains(x.content, name) {
			child.NotifyContent(attributesOnly, 0)
		} else {
			folder.NotifyDelete(name, child)
		}
	}
	if len(x.content) == 0 {
		images.NotifyDelete(x.id, folder)
		return
	}
	folder.NotifyContent(attributesOnly, 0)
}
