package fs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"glanced/catalog"
)

// However a document is read, it is the JSON of the fields.
func TestADocumentIsReadInPieces(t *testing.T) {
	name := "disk <&> \x01"
	img := catalog.Image{ID: "an-id", Name: &name, Tags: []string{"a", "b"}, Properties: map[string]string{
		"long": strings.Repeat("é\x02", 5000), "": "no attribute", "zzz": "the last", "name": "hidden", strings.Repeat("n", 250): "too long a name",
	}}
	r := &record{img: img}
	all := map[string]any{"xattrs_left_out": r.xattrs().leftOut}
	for k, v := range img.Properties {
		all[k] = v
	}
	for name, v := range ownFields(&img) {
		all[name] = v.Any()
	}
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(all); err != nil {
		t.Fatal(err)
	}
	if got := r.document().size(); got != int64(want.Len()) {
		t.Errorf("its size is %d, want %d", got, want.Len())
	}
	for _, piece := range []int{1, 7, 4096, 1 << 20} {
		var got []byte
		p := make([]byte, piece)
		for {
			n := r.document().read(p, int64(len(got)))
			if n == 0 {
				break
			}
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("in pieces of %d it is\n%.300s\nwant\n%.300s", piece, got, want.Bytes())
		}
	}
	if n := r.document().read(make([]byte, 10), 1<<40); n != 0 {
		t.Errorf("%d bytes were read past the end", n)
	}
}

// The cache forgets what was used least, by bytes and not by number alone.
func TestTheRecordCacheIsBoundedInBytes(t *testing.T) {
	fat := func(i int) *record {
		return &record{img: catalog.Image{ID: fmt.Sprint(i), Properties: map[string]string{"fat": strings.Repeat("x", 100<<10)}}}
	}
	c := newRecordCache(3 * fat(0).bytes())
	var kept []bool
	for i := range 5 {
		c.put(fat(i), 0)
	}
	for i := range 5 {
		r, _ := c.get(fmt.Sprint(i))
		kept = append(kept, r != nil)
	}
	if want := []bool{false, false, true, true, true}; !reflect.DeepEqual(kept, want) {
		t.Errorf("kept are %v, want %v", kept, want)
	}
	c.drop("3")
	if c.held != 2*fat(0).bytes() {
		t.Errorf("%d bytes are held by two records of %d", c.held, fat(0).bytes())
	}
}
