package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/engine"
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
	source stored.Bytes  // the image, inside its container
	beside formats.Files // the files of its container; nil = none
	above  *link         // the image that refers to it; nil = it is the one on top
	depth  int
}

// open opens the link's guest disk, which owns the source from here on.
func (l *link) open(ctx context.Context, snapshot string) (*engine.Disk, error) {
	disk, err := l.d.engine.Open(ctx, l.driver, l.source, engine.OpenOptions{Snapshot: snapshot, Files: l.part, Parent: l.parent})
	if err != nil {
		return nil, err
	}
	if err := disk.Check(ctx); err != nil {
		disk.Close()
		return nil, err
	}
	return disk, nil
}

// given opens the file at path, which the user gives for ref.
func (l *link) given(path string, ref formats.Ref) (*localfile.File, os.FileInfo, openedRef, error) {
	opened := openedRef{Depth: l.depth, Kind: ref.Kind, Name: ref.Name, File: path}
	file, info, err := openSource(path)
	if err != nil {
		return nil, nil, opened, fmt.Errorf("%w: %w", errGiven, err)
	}
	if err := l.loops(path, info); err != nil {
		file.Close()
		return nil, nil, opened, err
	}
	return file, info, opened, nil
}

// part supplies a file that holds a part of the image (formats.Files).
func (l *link) part(ctx context.Context, ref formats.Ref) (stored.Bytes, error) {
	path, ok := l.d.refs.find(ref)
	if !ok {
		if l.beside != nil {
			if src, err := l.beside(ctx, ref); !errors.Is(err, formats.ErrReference) {
				return src, err
			}
		}
		return nil, l.missing(ctx, ref)
	}
	file, _, opened, err := l.given(path, ref)
	if err != nil {
		return nil, err
	}
	l.d.refs.opened = append(l.d.refs.opened, opened)
	return file, nil
}

// parent supplies the disk below (engine.Parent).
func (l *link) parent(ctx context.Context, ref formats.Ref) (*engine.Disk, error) {
	path, ok := l.d.refs.find(ref)
	if !ok {
		return nil, l.missing(ctx, ref)
	}
	file, info, opened, err := l.given(path, ref)
	if err != nil {
		return nil, err
	}
	next := &link{d: l.d, file: info, source: file, above: l, depth: l.depth + 1}
	if err := next.recognise(ctx, ref.Format); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", opened.File, err)
	}
	opened.Format, opened.Probed = next.driver.Name, ref.Format == ""
	l.d.refs.opened = append(l.d.refs.opened, opened)
	disk, err := next.open(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opened.File, err)
	}
	l.d.parents = append(l.d.parents, disk)
	return disk, nil
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
	if info, err := l.driver.Inspect(ctx, l.source); err == nil {
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
