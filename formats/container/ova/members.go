package ova

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"

	"glanced/formats"
)

// What an archive may ask of us. ovftool and VirtualBox write a handful of
// members, each with one header block, or three when it is over 8 GiB.
const (
	maxMembers = 1024
	maxName    = 1024    // bytes
	maxHeaders = 4 << 20 // bytes of all headers together; archive/tar holds 1 MiB of one at most
)

// member is one regular file of the archive.
type member struct {
	name string // unique in the archive, valid UTF-8, canonical
	pos  int64  // where its bytes begin in the archive
	size int64  // bytes
}

// archive reads a tar's headers, for those that have all of it and seek over the
// members, and for those that see it stream by.
type archive struct {
	tar    *tar.Reader
	at     func() int64 // how far the archive has been read, or seeked
	budget *budget
	names  map[string]bool
}

// newArchive reads from r, of which at says the position. Where r is an
// io.Seeker, members that nobody reads are seeked over.
func newArchive(r io.Reader, at func() int64) *archive {
	b := &budget{r: r}
	a := &archive{at: at, budget: b, names: map[string]bool{}}
	if s, ok := r.(io.Seeker); ok {
		a.tar = tar.NewReader(seekingBudget{b, s})
	} else {
		a.tar = tar.NewReader(b)
	}
	return a
}

// next is the next regular file; io.EOF after the last. Its bytes are what
// archive.tar reads until next is called again, and lie in the archive as they are.
func (a *archive) next() (member, error) {
	for {
		a.budget.limit()
		h, err := a.tar.Next()
		a.budget.unlimited = true
		if err == io.EOF && len(a.names) > 0 {
			return member{}, io.EOF
		}
		if err != nil {
			return member{}, a.failure(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader { // comments of git archive and its like
			continue
		}
		name, err := a.check(h)
		if err != nil {
			return member{}, err
		}
		if h.Typeflag == tar.TypeReg {
			return member{name: name, pos: a.at(), size: h.Size}, nil
		}
	}
}

// failure says what it means that the next header cannot be read.
func (a *archive) failure(err error) error {
	switch {
	case len(a.names) == 0 && (errors.Is(err, tar.ErrHeader) || err == io.EOF || err == io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it does not begin with the header of a tar archive", formats.ErrFormat)
	case err == io.ErrUnexpectedEOF:
		return fmt.Errorf("%w: the archive ends in the middle of a file, at %d: it is cut off", formats.ErrCorrupt, a.at())
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return fmt.Errorf("%w: the tar header before %d makes no sense: %v", formats.ErrCorrupt, a.at(), err)
	}
	return err
}

// canonical is a relative path without the parts that mean nothing: "." and empty
// ones, which tar -c . writes. So no member has two names.
func canonical(name string) string {
	if name = path.Clean(name); name == "." {
		return ""
	}
	return name
}

// leadsUp reports whether a path has a part "..".
func leadsUp(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// check refuses what has no place in an OVA, and is the member's name.
func (a *archive) check(h *tar.Header) (string, error) {
	name := canonical(h.Name)
	corrupt := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("%w: the archive's member %.200q %s", formats.ErrCorrupt, h.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case len(a.names) >= maxMembers:
		return "", fmt.Errorf("%w: the archive has more than %d members", formats.ErrLimit, maxMembers)
	case len(name) > maxName:
		return "", fmt.Errorf("%w: a name of %d bytes in the archive, of %d at most", formats.ErrLimit, len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return corrupt("has a name that is not text")
	case strings.HasPrefix(name, "/"):
		return corrupt("has an absolute name")
	case leadsUp(h.Name):
		return corrupt("has a name that leads out of the archive")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			h.Typeflag = tar.TypeGNUSparse
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if name == "" || strings.HasSuffix(h.Name, "/") {
			return corrupt("is a file with the name of a folder")
		}
	case tar.TypeDir:
		if h.Size != 0 {
			return corrupt("is a folder of %d bytes", h.Size)
		}
		name += "/"
	case tar.TypeLink, tar.TypeSymlink:
		return corrupt("is a link; an OVA holds plain files only")
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return corrupt("is a device; an OVA holds plain files only")
	case tar.TypeGNUSparse:
		return "", fmt.Errorf("%w: the archive's member %.200q is stored sparse: pack it with tar without --sparse", formats.ErrUnsupported, h.Name)
	default:
		return "", fmt.Errorf("%w: the archive's member %.200q is of the type %q: pack it with tar --format=ustar", formats.ErrUnsupported, h.Name, h.Typeflag)
	}
	if a.names[name] {
		return corrupt("is there twice")
	}
	a.names[name] = true
	return name, nil
}

// budget bounds what the headers are read from; the members' own bytes are not
// counted.
type budget struct {
	r         io.Reader
	spent     int64
	unlimited bool
}

func (b *budget) limit() { b.unlimited = false }

func (b *budget) Read(p []byte) (int, error) {
	if b.unlimited {
		return b.r.Read(p)
	}
	if b.spent >= maxHeaders {
		return 0, fmt.Errorf("%w: the archive's headers take more than %d bytes", formats.ErrLimit, maxHeaders)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), maxHeaders-b.spent)])
	b.spent += int64(n)
	return n, err
}

// seekingBudget is a budget over what can seek.
type seekingBudget struct {
	*budget
	io.Seeker
}
