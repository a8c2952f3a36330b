package ctl

import (
	"encoding/json"
	"net/http"
	"slices"

	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/fields"
)

// assign sets one attribute of img, as create and patch both do. value was
// checked against the schema, so its type is right; what is checked here is who
// may, and how many.
func assign(img *catalog.Image, who Identity, name string, value any) error {
	f, ok := fields.Find(name)
	if !ok || !f.Base() {
		return setProperty(img, name, value)
	}
	switch v := checked(f, value); {
	case f.Kind == fields.List:
		return setTags(img, v.List)
	case f.Writer == fields.Administrator:
		return assignOwner(img, who, v)
	case name == "visibility" && v.Text == access.Public && img.Visibility != access.Public:
		if err := allowAny(who, access.Publicize); err != nil {
			return err
		}
		fallthrough
	default:
		f.Set(img, v)
	}
	return nil
}

// checked is what f is to be by value, which check has let pass.
func checked(f *fields.Field, value any) fields.Value {
	v := fields.Value{Kind: f.Kind}
	switch value := value.(type) {
	case nil:
		v.Null = true
	case string:
		v.Text = value
	case bool:
		v.Bool = value
	case json.Number:
		v.Int, _ = value.Int64() // check has refused what does not fit
	case []any:
		for _, s := range value {
			v.List = append(v.List, s.(string))
		}
	}
	return v
}

// assignOwner: null is the caller's own project, for every image has an owner here.
func assignOwner(img *catalog.Image, who Identity, v fields.Value) error {
	owner := v.Text
	if v.Null {
		owner = who.Project
	}
	if owner != img.Owner && allowAny(who, access.SetOwner) != nil {
		return fail(http.StatusForbidden, "You are not permitted to make '%s' the owner of images.", shorten(owner))
	}
	img.Owner = owner
	return nil
}

// setTags replaces them all; a tag that stands twice counts once, as in Glance.
func setTags(img *catalog.Image, tags []string) error {
	tags = slices.Compact(slices.Sorted(slices.Values(tags)))
	if len(tags) > fields.MaxTags {
		return tooMany("tags", len(tags), fields.MaxTags)
	}
	img.Tags = tags
	return nil
}

// setProperty sets a custom property. null, which the schema allows for kernel_id
// and ramdisk_id, is the property's absence.
func setProperty(img *catalog.Image, name string, value any) error {
	v, ok := value.(string)
	if !ok {
		delete(img.Properties, name)
		return nil
	}
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	img.Properties[name] = v
	if n := len(img.Properties); n > fields.MaxProperties {
		return tooMany("properties", n, fields.MaxProperties)
	}
	return nil
}

func tooMany(what string, n, most int) error {
	return fail(http.StatusRequestEntityTooLarge, "The limit has been exceeded on the number of allowed image %s. Attempted: %d, Maximum: %d", what, n, most)
}
