package fields_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"glanced/catalog/fields"
)

// byEncodingJSON is what encoding/json makes of v, HTML not escaped.
func byEncodingJSON(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func TestValuesAreWrittenAsEncodingJSONDoes(t *testing.T) {
	for _, v := range []fields.Value{
		{Kind: fields.Text, Null: true}, {Kind: fields.Text}, {Kind: fields.Text, Text: `a "b" <c>\d`}, {Kind: fields.Time, Text: "2026-12-01T06:00:05Z"},
		{Kind: fields.Integer, Int: -1 << 63}, {Kind: fields.Integer, Null: true}, {Kind: fields.Boolean, Bool: true}, {Kind: fields.Boolean},
		{Kind: fields.List}, {Kind: fields.List, List: []string{"x"}}, {Kind: fields.List, List: []string{"é\x01", ""}},
	} {
		if got, want := string(v.AppendJSON([]byte("x"))), "x"+byEncodingJSON(t, v.Any()); got != want {
			t.Errorf("%+v: %s, want %s", v, got, want)
		}
	}
}

func FuzzAppendText(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\b\f\n\r\t\x1f\x7f", `"\/<>&`, "ảnh 镜像 😀", "\u2028\u2029\u2027", "\xff\xc3", "a\xe2\x80", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := string(fields.AppendText(nil, s)), byEncodingJSON(t, s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	})
}
