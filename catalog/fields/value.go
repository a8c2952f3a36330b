package fields

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"glanced/catalog/records"
)

// TimeLayout is how Glance writes times: UTC, whole seconds.
const TimeLayout = "2006-01-02T15:04:05Z"

// Value is what a field is in one image; of which type, its Kind says.
type Value struct {
	Kind Kind
	Null bool     // it has none
	Text string   // of Text and Time
	Int  int64    // of Integer
	Bool bool     // of Boolean
	List []string // of List; nil is the empty one
}

// text is a Text.
func text(s string) Value { return Value{Kind: Text, Text: s} }

// textOrNull is a Text, null where it is empty.
func textOrNull(s string) Value { return Value{Kind: Text, Text: s, Null: s == ""} }

// At is where f is in img, a pointer: to a string, bool, int64, time.Time or []string, to
// a pointer to one of them where nil is null, or to a type of package records; nil where
// f is made of others.
func (f *Field) At(img *records.Image) any {
	if f.at == nil {
		return nil
	}
	return f.at(img)
}

// Of is f's value in img; null for what no door shows as it is. A text that may be null
// and has no pointer in the record is null where it is empty.
func (f *Field) Of(img *records.Image) Value {
	if f.read != nil {
		return f.read(img)
	}
	v := Value{Kind: f.Kind}
	switch p := f.At(img).(type) {
	case *string:
		v.Text, v.Null = *p, f.Null && *p == ""
	case **string:
		if v.Null = *p == nil; !v.Null {
			v.Text = **p
		}
	case *records.Status:
		v.Text = string(*p)
	case *bool:
		v.Bool = *p
	case *int64:
		v.Int = *p
	case **int64:
		if v.Null = *p == nil; !v.Null {
			v.Int = **p
		}
	case *time.Time:
		v.Text = p.UTC().Format(TimeLayout)
	case *[]string:
		v.List = *p
	default:
		v.Null = true
	}
	return v
}

// Set makes v, which f allows, its value in img. It is for fields that are Writable and
// no custom properties.
func (f *Field) Set(img *records.Image, v Value) {
	switch p := f.At(img).(type) {
	case *string:
		*p = v.Text
	case **string:
		if *p = nil; !v.Null {
			*p = &v.Text
		}
	case *bool:
		*p = v.Bool
	case *int64:
		*p = v.Int
	case *[]string:
		*p = v.List
	}
}

// Copy gives to what f is in from. Lists and maps are shared.
func (f *Field) Copy(to, from *records.Image) {
	switch p := f.At(to).(type) {
	case *string:
		*p = *f.At(from).(*string)
	case **string:
		*p = *f.At(from).(**string)
	case *bool:
		*p = *f.At(from).(*bool)
	case *int64:
		*p = *f.At(from).(*int64)
	case *[]string:
		*p = *f.At(from).(*[]string)
	case *map[string]string:
		*p = *f.At(from).(*map[string]string)
	}
}

// Equal tells whether the two are the same.
func (v Value) Equal(o Value) bool {
	return v.Null == o.Null && v.Text == o.Text && v.Int == o.Int && v.Bool == o.Bool && slices.Equal(v.List, o.List)
}

// Any is nil, a string, an int64, a bool or a []string that is not nil.
func (v Value) Any() any {
	if v.Null {
		return nil
	}
	switch v.Kind {
	case Integer:
		return v.Int
	case Boolean:
		return v.Bool
	case List:
		return append([]string{}, v.List...)
	}
	return v.Text
}

// String is v as text: texts as they are, lists as JSON, "" for null.
func (v Value) String() string {
	switch {
	case v.Null:
		return ""
	case v.Kind == Integer:
		return strconv.FormatInt(v.Int, 10)
	case v.Kind == Boolean:
		return strconv.FormatBool(v.Bool)
	case v.Kind == List:
		return listText(v.List)
	}
	return v.Text
}

// listText is a list in JSON, as text.
func listText(list []string) string {
	if list == nil {
		list = []string{}
	}
	b, _ := json.Marshal(list) // texts always marshal
	return string(b)
}
