package swift

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
)

// trickle is a body of which a byte comes after each pause.
type trickle []time.Duration

func (p *trickle) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	time.Sleep((*p)[0])
	*p = (*p)[1:]
	return 1, nil
}

// A request ends when no byte has moved for as long as stallTime, however long it has
// moved bytes before; the time in which our own side has nothing to send does not count.
func TestARequestThatStallsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t.Context(), stallTime)
		defer w.stop()
		w.rest()
		time.Sleep(24 * time.Hour)
		body := trickle{stallTime - 1, stallTime - 1, stallTime - 1, 0, stallTime - 1}
		if _, err := io.Copy(io.Discard, &moving{&body, w}); err != nil || w.ctx.Err() != nil {
			t.Errorf("a slow answer: %v, %v", err, context.Cause(w.ctx))
		}
		w.moved()
		began := time.Now()
		<-w.ctx.Done()
		if took := time.Since(began); took != stallTime || !errors.Is(context.Cause(w.ctx), backends.ErrUnavailable) {
			t.Errorf("after %v: %v", took, context.Cause(w.ctx))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		left := errors.New("the client hung up")
		ctx, leave := context.WithCancelCause(t.Context())
		w := newWatch(ctx, stallTime)
		leave(left)
		if synctest.Wait(); context.Cause(w.ctx) != left {
			t.Errorf("who has left: %v", context.Cause(w.ctx))
		}
		w.stop()
	})
}
