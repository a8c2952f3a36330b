package stored

import "context"

// Section is the bytes [off, off+n) of b, within it: a file in an archive. It has
// those abilities that b has. close is what its Close does; nil does nothing.
func Section(b Bytes, off, n int64, close func() error) Bytes {
	s := &section{b: b, off: off, n: n, id: b.Identity().Section(off, n), close: close}
	s.files, _ = As[FileRanger](b)
	s.holes, _ = As[Extenter](b)
	s.ahead, _ = As[Prefetcher](b)
	s.verifier, _ = As[Verifier](b)
	return s
}

type section struct {
	b      Bytes
	off, n int64 // within b, bytes
	id     Identity
	close  func() error

	// b's abilities; nil: it has not.
	files    FileRanger
	holes    Extenter
	ahead    Prefetcher
	verifier Verifier
}

func (s *section) Size() int64        { return s.n }
func (s *section) Identity() Identity { return s.id }

func (s *section) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

func (s *section) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := Inside(s, off, int64(len(p))); err != nil {
		return err
	}
	return s.b.ReadAt(ctx, p, s.off+off)
}

func (s *section) FileRange(off, n int64) (FileRange, bool) {
	if s.files == nil || Inside(s, off, n) != nil {
		return FileRange{}, false
	}
	return s.files.FileRange(s.off+off, n)
}

func (s *section) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := Inside(s, off, n); err != nil {
		return err
	}
	if s.holes == nil {
		if n > 0 {
			yield(off, n, false)
		}
		return nil
	}
	return s.holes.Extents(ctx, s.off+off, n, func(at, n int64, hole bool) bool {
		return yield(at-s.off, n, hole)
	})
}

func (s *section) Verify(ctx context.Context) error {
	if s.verifier == nil {
		return nil
	}
	return s.verifier.Verify(ctx)
}

func (s *section) Prefetch(off, n int64) {
	if s.ahead != nil && Inside(s, off, n) == nil {
		s.ahead.Prefetch(s.off+off, n)
	}
}
