package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"glanced/formats"
	"glanced/formats/all"
)

// errGiven is a --ref that does not do: the user's doing, not the image's.
var errGiven = errors.New("--ref does not fit")

// maxChain is how many disks there may be below an image.
const maxChain = 16

// refKinds are the words of --ref for references by what they are for.
var refKinds = map[formats.RefKind]string{
	formats.RefBacking: "backing", formats.RefDataFile: "data", formats.RefExtent: "extent", formats.RefParent: "parent",
}

// references is the list of --ref options, and what became of it.
type references struct {
	given  []givenRef
	opened []openedRef
}

// givenRef is one --ref: NAME as an image writes it, or a word of refKinds.
type givenRef struct {
	name, path string
	used       bool
}

// openedRef is a reference that was followed to a file.
type openedRef struct {
	Depth  int             `json:"depth"` // of the image that refers, 0 = the file given
	Kind   formats.RefKind `json:"kind"`
	Name   string          `json:"name"`
	File   string          `json:"file"`
	Format string          `json:"format,omitempty"` // of disks
	// Probed: the image does not say what the file is, so that its content was asked.
	Probed bool `json:"probed"`
}

// parseRefs splits at the last "=": names are anyone's and may hold some, FILE is
// the user's. So an image can not choose where the text is split.
func parseRefs(options []string) (*references, error) {
	r := &references{}
	byName := map[string]string{}
	for _, text := range options {
		i := strings.LastIndexByte(text, '=')
		if i <= 0 || i == len(text)-1 {
			return nil, fmt.Errorf("--ref %q is not NAME=FILE", text)
		}
		g := givenRef{name: text[:i], path: text[i+1:]}
		if have, twice := byName[g.name]; twice && !isKind(g.name) {
			return nil, fmt.Errorf("--ref %q is given twice, for %s and %s", g.name, have, g.path)
		}
		byName[g.name] = g.path
		r.given = append(r.given, g)
	}
	return r, nil
}

func isKind(word string) bool {
	for _, k := range refKinds {
		if k == word {
			return true
		}
	}
	return false
}

// find is the file that is given for ref: by its name, else the next that is
// given for its kind. A file named by its kind stands for one reference only.
func (r *references) find(ref formats.Ref) (path string, ok bool) {
	for i := range r.given {
		if g := &r.given[i]; g.name == ref.Name {
			g.used = true
			return g.path, true
		}
	}
	for i := range r.given {
		if g := &r.given[i]; !g.used && g.name == refKinds[ref.Kind] {
			g.used = true
			return g.path, true
		}
	}
	return "", false
}

// unused refuses a --ref that nothing asked for; have is what the image refers to.
func (r *references) unused(have []formats.Ref) error {
	for _, g := range r.given {
		if g.used {
			continue
		}
		hint := "It refers to no other file: leave --ref out."
		if len(have) > 0 {
			hint = "It refers to: " + referenceNames(have)
		}
		return &advised{fmt.Errorf("%w: nothing refers to %q", errGiven, g.name), hint}
	}
	return nil
}

// link is one image of a chain, while it is opened.
type link struct {
	d      *disk
	file   os.FileInfo // tells whether it is another one
	driver formats.Driver
	source formats.Source   // the image, inside its container
	beside formats.Resolver // the files of its container; nil = none
	above  *link            // the image that refers to it; nil = it is the one on top
	depth  int
}

// resolve is the link's formats.Resolver.
func (l *link) resolve(ctx context.Context, ref formats.Ref) (*formats.Disk, formats.Source, error) {
	path, ok := l.d.refs.find(ref)
	if !ok {
		if l.beside != nil {
			if disk, src, err := l.beside(ctx, ref); !errors.Is(err, formats.ErrReference) {
				return disk, src, err
			}
		}
		return nil, nil, l.missing(ctx, ref)
	}
	file, info, err := openSource(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errGiven, err)
	}
	if err := l.loops(path, info); err != nil {
		file.Close()
		return nil, nil, err
	}
	opened := openedRef{Depth: l.depth, Kind: ref.Kind, Name: ref.Name, File: path}
	if ref.Kind == formats.RefDataFile || ref.Kind == formats.RefExtent {
		l.d.refs.opened = append(l.d.refs.opened, opened)
		return nil, file, nil
	}
	next := &link{d: l.d, file: info, source: file, above: l, depth: l.depth + 1}
	opened.Probed = ref.Format == ""
	if err := next.recognise(ctx, ref.Format); err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	opened.Format = next.driver.Name
	l.d.refs.opened = append(l.d.refs.opened, opened)
	disk, err := l.d.engine.Open(ctx, next.driver, []formats.Source{file}, next.resolve, formats.Options{})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	l.d.parents = append(l.d.parents, disk)
	return disk, nil, nil
}

// recognise finds the driver: of the format that the image above says, else of
// the one that the content begins like. It is never looked for in a container.
func (l *link) recognise(ctx context.Context, said string) error {
	drivers := all.Drivers()
	if said == "" {
		var err error
		if said, err = formats.DetectSource(ctx, drivers, l.source); err != nil {
			return err
		}
	}
	driver, ok := formats.Find(drivers, said)
	if !ok {
		return fmt.Errorf("%w: the image that refers to it says that it is %q", formats.ErrUnsupported, said)
	}
	l.driver = driver
	return nil
}

// loops refuses a file that is in the chain already, and a chain that is too long.
func (l *link) loops(path string, file os.FileInfo) error {
	for up := l; up != nil; up = up.above {
		if os.SameFile(file, up.file) {
			return fmt.Errorf("%w: %s is in the chain of images already, which would never end", errGiven, path)
		}
	}
	if l.depth == maxChain {
		return fmt.Errorf("%w: more than %d images below the first", formats.ErrLimit, maxChain)
	}
	return nil
}

// missing says which --ref options the image needs.
func (l *link) missing(ctx context.Context, ref formats.Ref) error {
	need := []formats.Ref{ref}
	if info, err := l.driver.Inspect(ctx, []formats.Source{l.source}); err == nil {
		for _, other := range info.Refs {
			if other != ref && !l.d.refs.has(other) {
				need = append(need, other)
			}
		}
	}
	const shown = 8
	var options []string
	for _, r := range need[:min(len(need), shown)] {
		options = append(options, refOption(r))
	}
	hint := "A name inside an image is never followed. Name the file that it stands for with: " + strings.Join(options, " ")
	if more := len(need) - shown; more > 0 {
		hint += fmt.Sprintf(" and %d more", more)
	}
	return &advised{fmt.Errorf("%w, and no --ref says which", formats.ErrReference), hint}
}

// has reports whether a file is given for ref, by its name.
func (r *references) has(ref formats.Ref) bool {
	for _, g := range r.given {
		if g.name == ref.Name {
			return true
		}
	}
	return false
}

// refOption is the --ref that ref needs, for a shell: by name, or by kind where
// the name cannot be typed.
func refOption(ref formats.Ref) string {
	const typed = 200 // bytes of a name that a person would paste
	name := ref.Name
	if name == "" || len(name) > typed || printable(name) != name || name[0] == '-' {
		name = refKinds[ref.Kind]
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/+:@%-") == "" {
		return "--ref " + name + "=FILE"
	}
	return "--ref '" + strings.ReplaceAll(name, "'", `'\''`) + "=FILE'"
}
