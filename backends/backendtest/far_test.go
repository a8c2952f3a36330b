package backendtest_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
)

func farSuite(wrap func(*backendtest.Far) backends.Store, unwrap func(backends.Store) *backendtest.Far) backendtest.Suite {
	return backendtest.Suite{
		New:   func(testing.TB) backends.Store { return wrap(backendtest.NewFar("far")) },
		Again: func(_ testing.TB, s backends.Store) backends.Store { return wrap(unwrap(s).Again()) },
		List:  func(_ testing.TB, s backends.Store) []string { return unwrap(s).List() },
		Copy: func(_ testing.TB, s backends.Store, loc backends.Location) (backends.Store, backends.Location) {
			return wrap(unwrap(s).Copy()), backends.Location{Store: loc.Store, URL: loc.URL, Size: -1}
		},
		Replace: func(_ testing.TB, s backends.Store, loc backends.Location, content []byte) {
			unwrap(s).Replace(loc.URL[strings.LastIndex(loc.URL, "/")+1:], content)
		},
	}
}

func TestFarKeepsTheContract(t *testing.T) {
	farSuite(func(f *backendtest.Far) backends.Store { return f },
		func(s backends.Store) *backendtest.Far { return s.(*backendtest.Far) }).Run(t)
}

// A wrapper that lets everything through must not break the contract.
func TestFaultyKeepsTheContract(t *testing.T) {
	farSuite(func(f *backendtest.Far) backends.Store { return backendtest.Faulty{Store: f} },
		func(s backends.Store) *backendtest.Far { return s.(backendtest.Faulty).Store.(*backendtest.Far) }).Run(t)
}

var errCable = errors.New("somebody pulled the cable")

func TestFarTakesTheTimeOfItsRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := backendtest.NewFar("far")
		far.Delay = func(backendtest.Op) time.Duration { return 50 * time.Millisecond }
		began := time.Now()
		loc, err := backendtest.Put(t.Context(), far, "k", bytes.NewReader(backendtest.Noise(1, 3<<20+10)), -1)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 6*50*time.Millisecond { // begin, three parts, the rest, commit
			t.Errorf("the upload took %v", took)
		}
		b, err := far.Open(t.Context(), loc)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.ReadAt(t.Context(), make([]byte, 1000), 0); err != nil {
			t.Fatal(err)
		}
		for op, want := range map[backendtest.Op]backendtest.Count{
			backendtest.OpBegin: {Requests: 1}, backendtest.OpWrite: {Requests: 4, Bytes: 3<<20 + 10}, backendtest.OpCommit: {Requests: 1},
			backendtest.OpOpen: {Requests: 1}, backendtest.OpRead: {Requests: 1, Bytes: 1000}, backendtest.OpDelete: {},
		} {
			if got := far.Count(op); got != want {
				t.Errorf("%s: %+v, want %+v", op, got, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := b.ReadAt(ctx, make([]byte, 1000), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read that has less time than the trip takes: %v", err)
		}
	})
}

func TestEachCallFailsOnDemand(t *testing.T) {
	var failing, losing atomic.Pointer[backendtest.Op]
	hook := func(which *atomic.Pointer[backendtest.Op]) func(backendtest.Op) error {
		return func(op backendtest.Op) error {
			if at := which.Load(); at != nil && *at == op {
				return errCable
			}
			return nil
		}
	}
	far := backendtest.NewFar("far")
	far.Fail, far.Lose = hook(&failing), hook(&losing)
	faulty := backendtest.Faulty{Store: backendtest.NewFar("far"), Fail: hook(&failing), Lose: hook(&losing)}
	for name, s := range map[string]backends.Store{"far": far, "faulty": faulty} {
		for _, op := range []backendtest.Op{backendtest.OpBegin, backendtest.OpWrite, backendtest.OpCommit, backendtest.OpAbandon,
			backendtest.OpStat, backendtest.OpOpen, backendtest.OpDelete, backendtest.OpRead} {
			for what, which := range map[string]*atomic.Pointer[backendtest.Op]{"fails": &failing, "is lost": &losing} {
				which.Store(&op)
				err := wholeLife(t.Context(), s)
				if !errors.Is(err, errCable) {
					t.Errorf("%s: %s %s: %v", name, op, what, err)
				}
				which.Store(nil)
			}
		}
		if err := wholeLife(t.Context(), s); err != nil {
			t.Errorf("%s: with nothing that fails: %v", name, err)
		}
	}
}

// wholeLife makes every call, and leaves nothing.
func wholeLife(ctx context.Context, s backends.Store) error {
	rest := func(c backends.Claim, err error) error {
		// Two are enough: the one whose answer was lost did its work.
		return errors.Join(err, s.Abandon(ctx, c), s.Abandon(ctx, c))
	}
	w, err := s.Begin(ctx, "k", -1)
	if err != nil {
		return err
	}
	if _, err := backends.Copy(w, bytes.NewReader(backendtest.Noise(1, 2<<20)), -1); err != nil {
		return rest(w.Claim(), err)
	}
	loc, err := w.Commit(ctx)
	if err != nil {
		return rest(w.Claim(), err)
	}
	_, statErr := s.Stat(ctx, loc)
	b, err := s.Open(ctx, loc)
	if err == nil {
		err = errors.Join(b.ReadAt(ctx, make([]byte, 10), 5), b.Close())
	}
	return rest(w.Claim(), errors.Join(statErr, err, ignoreMissing(s.Delete(ctx, loc))))
}

func ignoreMissing(err error) error {
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	return err
}

// The first commit did its work, and nobody was told.
func TestACommitWhoseAnswerWasLostIsRepeated(t *testing.T) {
	lost := true
	lose := func(op backendtest.Op) error {
		if op == backendtest.OpCommit && lost {
			lost = false
			return errCable
		}
		return nil
	}
	far := backendtest.NewFar("far")
	far.Lose = lose
	for name, s := range map[string]backends.Store{"far": far, "faulty": backendtest.Faulty{Store: backendtest.NewFar("far"), Lose: lose}} {
		lost = true
		w, err := s.Begin(t.Context(), "k", -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(backendtest.Noise(1, 10)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(t.Context()); !errors.Is(err, errCable) {
			t.Errorf("%s: %v", name, err)
		}
		loc, err := w.Commit(t.Context())
		if err != nil {
			t.Fatalf("%s: again: %v", name, err)
		}
		if full, err := s.Stat(t.Context(), loc); err != nil || full != loc {
			t.Errorf("%s: %+v, %v; committed to %+v", name, full, err, loc)
		}
	}
}

func TestFarIsChangedUnderneath(t *testing.T) {
	far := backendtest.NewFar("far")
	content := backendtest.Noise(1, 1000)
	loc, err := backendtest.Put(t.Context(), far, "k", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := far.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		do   func()
		want error
	}{
		"swapped":  {func() { far.Replace("k", backendtest.Noise(2, 1000)) }, backends.ErrChanged},
		"cut off":  {func() { far.Truncate("k", 10) }, backends.ErrChanged},
		"removed":  {func() { far.Remove("k") }, backends.ErrNotFound},
		"put back": {func() { far.Replace("k", content) }, nil},
	} {
		far.Replace("k", content)
		c.do()
		if err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
