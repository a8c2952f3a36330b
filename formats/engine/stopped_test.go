package engine

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"glanced/formats"
)

// A source that is stopped may say so in words of its own; who joined too late to
// keep it from being stopped is not to get them.
func TestWhoJoinsAStoppedFlightTriesAgain(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 64<<10, 1)
	var stopped atomic.Bool
	told, answer := make(chan struct{}), make(chan struct{})
	src := &memSource{data: host, before: func(ctx context.Context, off int64) error {
		if stopped.CompareAndSwap(false, true) {
			<-ctx.Done()
			close(told)
			<-answer
			return errors.New("the connection was closed")
		}
		return nil
	}}
	e := newTestEngine(t, Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, src)
	ctx, cancel := context.WithCancel(context.Background())
	leader, late := make(chan error, 1), make(chan error, 1)
	go func() { leader <- d.ReadAt(ctx, make([]byte, 100), 0) }()
	waitFor(t, func() bool { return waiting(e, d, 0) == 0 })
	cancel()
	<-told
	p := make([]byte, 4096)
	go func() { late <- d.ReadAt(context.Background(), p, 8192) }()
	waitFor(t, func() bool { return waiting(e, d, 0) == 1 })
	close(answer)
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Errorf("the leader: %v", err)
	}
	if err := <-late; err != nil || !bytes.Equal(p, want[8192:8192+4096]) {
		t.Errorf("who came late: %v", err)
	}
}

// A remote source that hangs holds the working memory; who waits for some of it
// is not held up past its own context, wherever its bytes lie.
func TestAReaderWaitingForMemoryLeavesWhenItsContextEnds(t *testing.T) {
	e := newTestEngine(t, Options{BufferBytes: 64 << 10})
	l, host, _ := clustered(formats.Zlib, 64<<10, 1)
	g := newGated()
	remote := openTable(t, e, l, &memSource{data: host, before: g.before})
	l, host, want := clustered(formats.Zlib, 64<<10, 2)
	local := openTable(t, e, l, newFileSource(t, host))

	answer := sync.OnceFunc(func() { close(g.open) })
	defer answer()
	hung := make(chan error, 1)
	go func() { hung <- remote.ReadAt(context.Background(), make([]byte, 100), 0) }()
	<-g.arrived
	ctx, cancel := context.WithCancel(context.Background())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() { left <- local.ReadAt(ctx, make([]byte, 4096), 0) }()
	waitFor(t, func() bool { return waiting(e, local, 0) == 0 })
	p := make([]byte, 4096)
	go func() { stayed <- local.ReadAt(context.Background(), p, 8192) }()
	waitFor(t, func() bool { return waiting(e, local, 0) == 1 })
	cancel()
	waitFor(t, func() bool { return len(left) == 1 })
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	answer()
	if err := <-stayed; err != nil || !bytes.Equal(p, want[8192:8192+4096]) {
		t.Errorf("who joined it, and stayed: %v", err)
	}
	if err := <-hung; err != nil {
		t.Errorf("the remote reader: %v", err)
	}
}

// A source that hangs holds its share of the working memory, however many read from
// it, and others go on.
func TestAHungSourceHoldsNoMoreThanItsShare(t *testing.T) {
	e := newTestEngine(t, Options{BufferBytes: 4 << 20})
	l, host, _ := clustered(formats.Zlib, 64<<10, 64)
	g := newGated()
	hung := openTable(t, e, l, &memSource{data: host, before: g.before})
	l, host, want := clustered(formats.Zlib, 64<<10, 16)
	fine := openTable(t, e, l, &memSource{data: host})

	var readers sync.WaitGroup
	for i := range int64(64) {
		readers.Go(func() {
			if err := hung.ReadAt(context.Background(), make([]byte, 100), i*64<<10); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return e.working.Free() < 4<<20*9/10 && hung.calls.n.Load() == 64 })
	p := make([]byte, len(want))
	if err := fine.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want) {
		t.Errorf("beside it: %v, or other bytes", err)
	}
	if free := e.working.Free(); free < 2<<20 {
		t.Errorf("it holds all but %d bytes", free)
	}
	close(g.open)
	readers.Wait()
}

// Clusters that are fetched together fail together; who wants only one of them is
// not to fail for the bytes of another.
func TestAFaultInANeighbouringClusterFailsItsReaderOnly(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 64<<10, 2)
	fault := errors.New("bad sector")
	var reads atomic.Int64
	g := newGated()
	src := &memSource{data: host, before: func(ctx context.Context, off int64) error {
		if reads.Add(1) > 1 {
			return nil
		}
		g.before(ctx, off)
		return fault
	}}
	e := newTestEngine(t, Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, src)
	both, one := make(chan error, 1), make(chan error, 1)
	go func() { both <- d.ReadAt(context.Background(), make([]byte, 128<<10), 0) }()
	<-g.arrived
	p := make([]byte, 4096)
	go func() { one <- d.ReadAt(context.Background(), p, 8192) }()
	waitFor(t, func() bool { return waiting(e, d, 0) == 1 })
	close(g.open)
	if err := <-both; !errors.Is(err, fault) {
		t.Errorf("who reads both clusters: %v", err)
	}
	if err := <-one; err != nil || !bytes.Equal(p, want[8192:8192+4096]) {
		t.Errorf("who reads the first: %v", err)
	}
}

// A fetch of several clusters ends when its leader leaves, though somebody else waited
// for one of them and has it: a source that hangs would hold the leader for ever.
func TestAFetchEndsWithItsLeaderWhenWhoJoinedHasWhatItWanted(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 1<<20, 2)
	second := l.extents[1].Pos
	first, hangs, over := newGated(), make(chan struct{}), make(chan struct{})
	src := &memSource{data: host, before: func(ctx context.Context, off int64) error {
		if off < second {
			return first.before(ctx, off)
		}
		close(hangs)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return errors.New("nobody stopped it")
		}
	}}
	e := newTestEngine(t, Options{CacheBytes: 16 << 20, BufferBytes: 64 << 20})
	e.maxRun = 1 // each cluster is read by itself
	d := openTable(t, e, l, src)
	ctx, cancel := context.WithCancel(context.Background())
	leader, joined := make(chan error, 1), make(chan error, 1)
	go func() { leader <- d.ReadAt(ctx, make([]byte, 2<<20), 0) }()
	<-first.arrived
	<-hangs
	p := make([]byte, 4096)
	go func() { joined <- d.ReadAt(context.Background(), p, 8192) }()
	waitFor(t, func() bool { return waiting(e, d, 0) == 1 })
	close(first.open)
	if err := <-joined; err != nil || !bytes.Equal(p, want[8192:8192+4096]) {
		t.Errorf("who joined: %v", err)
	}
	cancel()
	defer close(over)
	waitFor(t, func() bool { return len(leader) == 1 })
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Errorf("the leader: %v", err)
	}
}
