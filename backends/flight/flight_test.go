package flight_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"glanced/backends/flight"
)

func TestOneWorksForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[string, int]
		works := 0
		begin := make(chan struct{})
		work := func(context.Context) (int, error) {
			works++
			<-begin
			return 7, nil
		}
		for range 5 {
			go func() {
				if v, err := g.Do(t.Context(), "k", work); v != 7 || err != nil {
					t.Errorf("got %d, %v", v, err)
				}
			}()
		}
		synctest.Wait()
		close(begin)
		synctest.Wait()
		if works != 1 {
			t.Errorf("the work was done %d times", works)
		}
		if v, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { return 8, nil }); v != 8 || err != nil {
			t.Errorf("afterwards: %d, %v: want it done anew", v, err)
		}
	})
}

func TestWhoWorksStaysWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[string, int]
		first, hangUp := context.WithCancel(t.Context())
		second, hangUpToo := context.WithCancel(t.Context())
		ended := false
		go g.Do(first, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			ended = true
			return 0, ctx.Err()
		})
		synctest.Wait()
		joined := make(chan error, 1)
		go func() {
			_, err := g.Do(second, "k", nil)
			joined <- err
		}()
		synctest.Wait()
		hangUp()
		synctest.Wait()
		if ended {
			t.Error("the work ended with who began it, though another waits")
		}
		hangUpToo()
		synctest.Wait()
		if err := <-joined; !errors.Is(err, context.Canceled) || !ended {
			t.Errorf("who waited got %v; the work ended: %v", err, ended)
		}
	})
}

func TestWhatAllHaveLeftNobodyJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[string, int]
		ctx, hangUp := context.WithCancel(t.Context())
		slow := make(chan struct{})
		go g.Do(ctx, "k", func(ctx context.Context) (int, error) {
			<-slow // does not heed its context
			return 1, nil
		})
		synctest.Wait()
		hangUp()
		synctest.Wait()
		if v, err := g.Do(t.Context(), "k", func(context.Context) (int, error) { return 2, nil }); v != 2 || err != nil {
			t.Errorf("got %d, %v, want work of its own", v, err)
		}
		close(slow)
	})
}

func TestEndFailsAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[string, int]
		removed := errors.New("removed")
		got := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := g.Do(t.Context(), "k", func(ctx context.Context) (int, error) {
					<-ctx.Done()
					return 0, context.Cause(ctx)
				})
				got <- err
			}()
		}
		synctest.Wait()
		g.End("k", removed)
		for range 2 {
			if err := <-got; !errors.Is(err, removed) {
				t.Errorf("got %v", err)
			}
		}
		g.End("k", removed)
	})
}
