package ova

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"

	"glanced/formats"
	"glanced/formats/container"
)

// maxManifest bounds the manifest, bytes: some 9000 lines, where an archive has
// at most maxMembers files.
const maxManifest = 1 << 20

// algorithms are those that manifests use (DSP0243, 7.3; ovftool's --shaAlgorithm).
var algorithms = map[string]func() hash.Hash{
	"SHA1":   sha1.New,
	"SHA256": sha256.New,
	"SHA512": sha512.New,
}

// listed is one line of a manifest.
type listed struct {
	name, algorithm string
	digest          []byte
}

// digests compares members with a manifest that comes before, between or after them.
type digests struct {
	seen bool // the manifest
	list []listed
	of   map[string]map[string][]byte // member, algorithm: what was computed
}

// member hashes a member: with what the manifest asks for, or with all where
// there has been none yet.
func (d *digests) member(m member, r io.Reader, buf []byte) error {
	running := map[string]hash.Hash{}
	for name, make := range algorithms {
		if !d.seen {
			running[name] = make()
		}
	}
	for _, l := range d.list {
		if l.name == m.name {
			running[l.algorithm] = algorithms[l.algorithm]()
		}
	}
	hs := hashers{}
	for name, h := range running {
		hs[name] = h
	}
	for {
		n, err := r.Read(buf)
		hs.write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	computed := map[string][]byte{}
	for name, h := range running {
		computed[name] = h.Sum(nil)
	}
	d.of[m.name] = computed
	return d.compare(m.name)
}

// manifest takes the list, and compares what was hashed before.
func (d *digests) manifest(m member, r io.Reader) error {
	if d.seen {
		return fmt.Errorf("%w: the archive has two manifests, the second is %.200q", formats.ErrCorrupt, m.name)
	}
	if m.size > maxManifest {
		return fmt.Errorf("%w: the manifest %.200q has %d bytes, of %d at most", formats.ErrLimit, m.name, m.size, maxManifest)
	}
	text := make([]byte, m.size)
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	d.seen = true
	var err error
	if d.list, err = parseManifest(text); err != nil {
		return err
	}
	for name := range d.of {
		if err := d.compare(name); err != nil {
			return err
		}
	}
	return nil
}

// compare holds what was computed of a member against all lines for it.
func (d *digests) compare(name string) error {
	for _, l := range d.list {
		if l.name == name && !bytes.Equal(d.of[name][l.algorithm], l.digest) {
			return fmt.Errorf("%w: the %s of %.200q is %x, and the manifest says %x", container.ErrDigest, l.algorithm, name, d.of[name][l.algorithm], l.digest)
		}
	}
	return nil
}

// end asks that all that the manifest lists was there.
func (d *digests) end() error {
	for _, l := range d.list {
		if d.of[l.name] == nil {
			return fmt.Errorf("%w: the manifest lists %.200q, which is not in the archive", container.ErrDigest, l.name)
		}
	}
	return nil
}

// parseManifest reads lines as `SHA256(disk.vmdk)= 0a1b…`; blanks vary.
func parseManifest(text []byte) ([]listed, error) {
	var list []listed
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		bad := func(what string) error {
			return fmt.Errorf("%w: line %d of the manifest, %.200q: %s", formats.ErrCorrupt, number, line, what)
		}
		algorithm, rest, opened := strings.Cut(line, "(")
		closing := strings.LastIndex(rest, ")")
		if !opened || closing < 0 {
			return nil, bad("it is not ALGORITHM(FILE)= DIGEST")
		}
		algorithm = strings.ToUpper(strings.TrimSpace(algorithm))
		digits, ok := strings.CutPrefix(strings.TrimSpace(rest[closing+1:]), "=")
		make := algorithms[strings.ReplaceAll(algorithm, "-", "")]
		if !ok || make == nil {
			return nil, bad("it is not the SHA1, SHA256 or SHA512 of a file")
		}
		digest, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil || len(digest) != make().Size() {
			return nil, bad("the digest is not one of " + algorithm)
		}
		name := rest[:closing]
		if !leadsUp(name) {
			name = canonical(name)
		}
		list = append(list, listed{name, strings.ReplaceAll(algorithm, "-", ""), digest})
	}
	return list, nil
}
