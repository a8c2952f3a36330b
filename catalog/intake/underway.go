package intake

import (
	"context"
	"fmt"
	"time"
)

// awaitPlace waits for a place among the uploads under way, or for Close.
func (in *Intake) awaitPlace(ctx context.Context, project string) (leave func(), err error) {
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(in.uploadWait, func() { cancel(ErrUploads) })
	defer late.Stop()
	waited := make(chan struct{})
	defer close(waited)
	go func() {
		select {
		case <-in.closed:
			cancel(ErrClosing)
		case <-waited:
		}
	}()
	return in.places.Take(wait, project)
}

// admit counts one more upload, unless Close was called.
func (in *Intake) admit() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closing {
		in.ending.Add(1)
	}
	return !in.closing
}

// Close ends the uploads under way, which fail with ErrClosing and leave nothing, admits no
// more, and waits for them, but not for longer than patience: what hangs in a store is left
// to the sweep of the next start, and Close says so.
func (in *Intake) Close(patience time.Duration) error {
	in.mu.Lock()
	if !in.closing {
		in.closing = true
		close(in.closed)
	}
	for _, cancel := range in.uploads {
		cancel(ErrClosing)
	}
	in.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		in.ending.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("uploads still run %v after they were told to end; the next start sweeps them", patience)
	}
}

func (in *Intake) enterUpload(id string, cancel context.CancelCauseFunc) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.uploads[id] = cancel
	if in.closing { // it began between admit and here
		cancel(ErrClosing)
	}
}

// uploading tells whether an upload of the image is under way here.
func (in *Intake) uploading(id string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.uploads[id]
	return ok
}

func (in *Intake) leaveUpload(id string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.uploads, id)
}

// Cancel ends an upload of a deleted image early, if it is one of ours: ErrGone.
func (in *Intake) Cancel(id string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if cancel, ok := in.uploads[id]; ok {
		cancel(ErrGone)
	}
}
