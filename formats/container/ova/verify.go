package ova

import (
	"fmt"
	"io"
	"sync"

	"glanced/formats"
	"glanced/formats/container"
)

// chunk is how much of the stream is taken at once, bytes.
const chunk = 256 << 10

// verifier hands what is written to a goroutine that reads it as a tar. It holds
// at most one chunk: a Write returns when its bytes were read.
type verifier struct {
	in   *io.PipeWriter
	done chan struct{}
	err  error // once done is closed
}

// verify begins to check an OVA that streams by against its manifest, wherever
// in the archive that is. An OVA without one, and members that it does not list,
// are fine; the certificate is not looked at.
func verify() container.Verifier {
	r, w := io.Pipe()
	v := &verifier{in: w, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		v.err = follow(r)
		if v.err == nil { // what comes after the archive's end is nobody's
			_, v.err = io.Copy(io.Discard, r)
		}
		r.CloseWithError(v.err)
	}()
	return v
}

// Write implements container.Verifier.
func (v *verifier) Write(p []byte) (int, error) { return v.in.Write(p) }

// Close implements container.Verifier: nothing is written after it.
func (v *verifier) Close() error {
	v.in.Close()
	<-v.done
	return v.err
}

// follow reads an archive from r up to its end, and compares its members with
// the manifest: as soon as both have been seen.
func follow(r io.Reader) error {
	c := &counter{r: r}
	a := newArchive(c, func() int64 { return c.n })
	check := digests{of: map[string]map[string][]byte{}}
	buf := make([]byte, chunk)
	for {
		m, err := a.next()
		if err == io.EOF {
			return check.end()
		}
		if err != nil {
			return err
		}
		if isManifest(m.name) {
			err = check.manifest(m, a.tar)
		} else {
			err = check.member(m, a.tar, buf)
		}
		if err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("%w: the archive ends in the middle of %.200q: it is cut off", formats.ErrCorrupt, m.name)
		}
		if err != nil {
			return err
		}
	}
}

// counter counts what was read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// hashers are the running digests of one member.
type hashers map[string]io.Writer

// write hashes p with each, at the same time where there are several.
func (hs hashers) write(p []byte) {
	var all sync.WaitGroup
	for _, h := range hs {
		if len(hs) == 1 {
			h.Write(p)
			continue
		}
		all.Go(func() { h.Write(p) })
	}
	all.Wait()
}
