package intake

import (
	"context"
	"errors"
	"fmt"
	"io"

	"glanced/catalog/records"
	"glanced/formats/container"
)

const (
	firstStep = 8 << 20 // bytes reserved at first where the size is unknown
	leastStep = 1 << 20 // below this, what is needed and no more
)

// stream is the body of an upload on its way into the store: reading from it
// checks the size limits, reserves quota, feeds the hashes, and stops a body
// that is not of the declared format.
type stream struct {
	ctx   context.Context // the upload's; a stream lives inside one call of Upload
	u     *upload
	body  io.Reader
	n     int64 // bytes so far
	kind  *recogniser
	hash  *hashes
	check container.Verifier // of what a container says of itself; nil = nothing, or it cannot be followed
	err   error              // why the body was refused; not io.EOF
}

func newStream(ctx context.Context, u *upload, body io.Reader) *stream {
	s := &stream{ctx: ctx, u: u, body: body, kind: u.in.recogniser(u.img), hash: newHashes(u.in.memory)}
	if kind, ok := container.Find(u.in.containers, *u.img.ContainerFormat); ok && kind.Verify != nil {
		s.check = kind.Verify()
	}
	return s
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *stream) read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, s.cutOff()
	}
	n, err := s.body.Read(p)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("%w after %d bytes: %w", ErrBody, s.n+int64(n), err)
	}
	s.n += int64(n)
	if s.n > s.u.in.sizeCap {
		return 0, fmt.Errorf("%w: at most %d bytes", ErrTooLarge, s.u.in.sizeCap)
	}
	if a := s.u.announced; a >= 0 && (s.n > a || err == io.EOF && s.n < a) {
		return 0, fmt.Errorf("%w: %d bytes were announced, %d came", ErrBodySize, a, s.n)
	}
	if s.n > s.u.reserved {
		if err := s.u.reserve(s.ctx, s.n); err != nil {
			if s.ctx.Err() != nil {
				return 0, s.cutOff()
			}
			return 0, err
		}
	}
	if err := s.kind.write(p[:n], err == io.EOF); err != nil {
		return 0, err
	}
	s.hash.write(p[:n])
	if err := s.verify(p[:n], err == io.EOF); err != nil {
		return 0, err
	}
	return n, err
}

// verify hands a container's bytes to its check. Only what the container itself
// contradicts is an error: as in Glance, one may hold anything.
func (s *stream) verify(p []byte, last bool) error {
	if s.check == nil {
		return nil
	}
	_, err := s.check.Write(p)
	if err == nil && last {
		err = s.endCheck()
	}
	switch {
	case errors.Is(err, container.ErrDigest):
		return fmt.Errorf("%w: %w", ErrFormat, err)
	case err != nil:
		s.endCheck()
	}
	return nil
}

// endCheck ends the check, and is its last word.
func (s *stream) endCheck() error {
	check := s.check
	if check == nil {
		return nil
	}
	s.check = nil
	return check.Close()
}

// cutOff is why an upload whose context has ended cannot go on.
func (s *stream) cutOff() error {
	return fmt.Errorf("%w after %d bytes: %w", ErrBody, s.n, context.Cause(s.ctx))
}

// sums are the hashes of the whole body; call it once, after Read said io.EOF.
func (s *stream) sums() sums { return s.hash.sums() }

// close stops the hashes and the check.
func (s *stream) close() {
	s.hash.close()
	s.endCheck()
}

// reserve counts an upload of unknown size against the quota before its bytes
// are stored. It takes more than it needs at once, so that a long upload is few
// transactions, but never so much that this alone makes it fail.
func (u *upload) reserve(ctx context.Context, need int64) error {
	step := max(firstStep, u.reserved/4)
	for {
		want := max(need, u.reserved+step)
		if step < leastStep {
			want = need
		}
		err := u.whenFree(ctx, func() error {
			_, err := u.in.records.UpdateUnder(ctx, u.id, u.keep(), func(img *records.Image) error {
				if img.Status != records.Saving {
					return fmt.Errorf("image %s: %w", u.id, ErrGone)
				}
				img.Reserved = want
				return nil
			})
			return err
		})
		switch {
		case err == nil:
			u.reserved = want
			return nil
		case !errors.Is(err, records.ErrQuota) || want == need:
			return err
		}
		step /= 2
	}
}
