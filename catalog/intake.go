package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"glanced/formats/container"
)

const (
	firstStep = 8 << 20 // bytes reserved at first where the size is unknown
	leastStep = 1 << 20 // below this, what is needed and no more
)

// intake is the body of an upload on its way into the store: reading from it
// checks the size limits, reserves quota, feeds the hashes, and stops a body
// that is not of the declared format.
type intake struct {
	ctx   context.Context // the upload's; an intake lives inside one call of Upload
	u     *upload
	body  io.Reader
	n     int64 // bytes so far
	kind  *recogniser
	hash  *hashes
	check container.Verifier // of what a container says of itself; nil = nothing, or it cannot be followed
	err   error              // why the body was refused; not io.EOF
}

func newIntake(ctx context.Context, u *upload, body io.Reader) *intake {
	in := &intake{ctx: ctx, u: u, body: body, kind: u.c.recogniser(u.img), hash: newHashes(u.c.uploadMemory)}
	if kind, ok := container.Find(u.c.containers, *u.img.ContainerFormat); ok && kind.Verify != nil {
		in.check = kind.Verify()
	}
	return in
}

// Read implements io.Reader.
func (in *intake) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.read(p)
	if err != nil && err != io.EOF {
		in.err = err
	}
	return n, err
}

func (in *intake) read(p []byte) (int, error) {
	if in.ctx.Err() != nil {
		return 0, in.cutOff()
	}
	n, err := in.body.Read(p)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("%w after %d bytes: %w", ErrBody, in.n+int64(n), err)
	}
	in.n += int64(n)
	if in.n > in.u.c.sizeCap {
		return 0, fmt.Errorf("%w: at most %d bytes", ErrTooLarge, in.u.c.sizeCap)
	}
	if a := in.u.announced; a >= 0 && (in.n > a || err == io.EOF && in.n < a) {
		return 0, fmt.Errorf("%w: %d bytes were announced, %d came", ErrBodySize, a, in.n)
	}
	if in.n > in.u.reserved {
		if err := in.u.reserve(in.ctx, in.n); err != nil {
			if in.ctx.Err() != nil {
				return 0, in.cutOff()
			}
			return 0, err
		}
	}
	if err := in.kind.write(p[:n], err == io.EOF); err != nil {
		return 0, err
	}
	in.hash.write(p[:n])
	if err := in.verify(p[:n], err == io.EOF); err != nil {
		return 0, err
	}
	return n, err
}

// verify hands a container's bytes to its check. Only what the container itself
// contradicts is an error: as in Glance, one may hold anything.
func (in *intake) verify(p []byte, last bool) error {
	if in.check == nil {
		return nil
	}
	_, err := in.check.Write(p)
	if err == nil && last {
		err = in.endCheck()
	}
	switch {
	case errors.Is(err, container.ErrDigest):
		return fmt.Errorf("%w: %w", ErrFormat, err)
	case err != nil:
		in.endCheck()
	}
	return nil
}

// endCheck ends the check, and is its last word.
func (in *intake) endCheck() error {
	check := in.check
	if check == nil {
		return nil
	}
	in.check = nil
	return check.Close()
}

// cutOff is why an upload whose context has ended cannot go on.
func (in *intake) cutOff() error {
	return fmt.Errorf("%w after %d bytes: %w", ErrBody, in.n, context.Cause(in.ctx))
}

// sums are the hashes of the whole body; call it once, after Read said io.EOF.
func (in *intake) sums() sums { return in.hash.sums() }

// close stops the hashes and the check.
func (in *intake) close() {
	in.hash.close()
	in.endCheck()
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
			_, err := u.c.records.UpdateUnder(ctx, u.id, u.keep(), func(img *Image) error {
				if img.Status != Saving {
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
		case !errors.Is(err, ErrQuota) || want == need:
			return err
		}
		step /= 2
	}
}
