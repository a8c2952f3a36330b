package fs

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// document is the text of metadata.json: an image's own fields by their names in the tree,
// null where they have no value, custom properties beside them, and under xattrs_left_out
// what has no extended attribute, with the reason. The text may be many times as long as the record, so that it is never made
// whole: a document knows where the line of each key begins, and makes the lines that are
// read. It does not change.
type document struct {
	r      *record
	keys   []string // in order
	starts []int64  // of each key's line, and of what follows the last one; bytes
}

// What stands around the lines of an object.
const (
	opening = "{\n"
	closing = "}\n"
)

func newDocument(r *record) document {
	d := document{r: r}
	d.keys = slices.Sorted(maps.Keys(d.fields()))
	at := int64(len(opening))
	fields := d.fields()
	for i := range d.keys {
		d.starts = append(d.starts, at)
		at += int64(len(d.line(fields, i)))
	}
	d.starts = append(d.starts, at)
	return d
}

// fields are the values by their keys.
func (d *document) fields() map[string]any {
	all := make(map[string]any, len(d.r.img.Properties)+32)
	for name, value := range d.r.img.Properties {
		if !hidden(name) {
			all[name] = value
		}
	}
	for name, v := range ownFields(&d.r.img) {
		all[name] = v.Any()
	}
	all["xattrs_left_out"] = append([]leftOut{}, d.r.xattrs().leftOut...)
	return all
}

// line is that of key i, with its end.
func (d *document) line(fields map[string]any, i int) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	b.WriteString("  ")
	_ = enc.Encode(d.keys[i]) // strings, numbers and lists of them always encode
	b.Truncate(b.Len() - 1)   // the encoder's newline
	b.WriteString(": ")
	_ = enc.Encode(fields[d.keys[i]])
	if i < len(d.keys)-1 {
		b.Truncate(b.Len() - 1)
		b.WriteString(",\n")
	}
	return b.Bytes()
}

// size of the text, bytes.
func (d *document) size() int64 { return d.starts[len(d.keys)] + int64(len(closing)) }

// read copies the text from off on into p, and says how much.
func (d *document) read(p []byte, off int64) (n int) {
	take := func(text []byte, at int64) { // text stands at at
		if skip := off + int64(n) - at; skip >= 0 && skip < int64(len(text)) {
			n += copy(p[n:], text[skip:])
		}
	}
	take([]byte(opening), 0)
	fields := d.fields()
	first, _ := slices.BinarySearch(d.starts, off+1)
	for i := max(first-1, 0); i < len(d.keys) && n < len(p); i++ {
		take(d.line(fields, i), d.starts[i])
	}
	take([]byte(closing), d.starts[len(d.keys)])
	return n
}
