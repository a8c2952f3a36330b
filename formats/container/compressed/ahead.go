package compressed

import (
	"context"
	"io"

	"glanced/backends/stored"
)

// How much is fetched while the decompressor works: with a remote store each
// chunk is a request.
const (
	aheadChunk  = 1 << 20 // bytes
	aheadChunks = 4
)

// ahead reads a source from the beginning to the end, some chunks ahead of who
// reads from it. It is an io.ByteReader, so that no decompressor buffers again.
type ahead struct {
	stop   context.CancelFunc
	ended  chan struct{}
	full   chan []byte // closed at the end, or after an error
	free   chan []byte
	err    error // once full is closed
	cur    []byte
	left   []byte // of cur
	taken  int64
	closed bool // full was seen closed
}

// readAhead begins to read; Close it.
func readAhead(ctx context.Context, src stored.Bytes) *ahead {
	ctx, stop := context.WithCancel(ctx)
	a := &ahead{stop: stop, ended: make(chan struct{}),
		full: make(chan []byte, aheadChunks), free: make(chan []byte, aheadChunks)}
	for range aheadChunks {
		a.free <- nil
	}
	go func() {
		defer close(a.ended)
		defer close(a.full)
		a.err = a.fetch(ctx, src)
	}()
	return a
}

func (a *ahead) fetch(ctx context.Context, src stored.Bytes) error {
	for off := int64(0); off < src.Size(); {
		var b []byte
		select {
		case b = <-a.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		n := min(aheadChunk, src.Size()-off)
		if int64(cap(b)) < n {
			b = make([]byte, n)
		}
		b = b[:n]
		if err := src.ReadAt(ctx, b, off); err != nil {
			return err
		}
		a.full <- b // has room for all there are
		off += n
	}
	return nil
}

// more makes left non-empty; io.EOF at the end.
func (a *ahead) more() error {
	if len(a.left) > 0 {
		return nil
	}
	if a.closed {
		return a.end()
	}
	if a.cur != nil {
		a.free <- a.cur
		a.cur = nil
	}
	b, ok := <-a.full
	if !ok {
		a.closed = true
		return a.end()
	}
	a.cur, a.left = b, b
	a.taken += int64(len(b))
	return nil
}

func (a *ahead) end() error {
	if a.err != nil {
		return a.err
	}
	return io.EOF
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.more(); err != nil {
		return 0, err
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

// ReadByte implements io.ByteReader.
func (a *ahead) ReadByte() (byte, error) {
	if err := a.more(); err != nil {
		return 0, err
	}
	b := a.left[0]
	a.left = a.left[1:]
	return b, nil
}

// at is how many bytes were read.
func (a *ahead) at() int64 { return a.taken - int64(len(a.left)) }

// failed is the source's error, if that is what a read ended with.
func (a *ahead) failed() error {
	if a.closed {
		return a.err
	}
	return nil
}

// Close ends the reading ahead: the source is not used any more when it returns.
func (a *ahead) Close() error {
	a.stop()
	<-a.ended
	return nil
}
