package ctl

import (
	"encoding/json"
	"net/http"
	"slices"

	"glanced/catalog"
	"glanced/catalog/access"
)

// assign sets one attribute of img, as create and patch both do. value was
// checked against the schema, so its type is right; what is checked here is who
// may, and how many.
func (s *Server) assign(img *catalog.Image, who Identity, name string, value any) error {
	switch name {
	case "id":
		img.ID = value.(string)
	case "name":
		img.Name = optional(value)
	case "disk_format":
		img.DiskFormat = optional(value)
	case "container_format":
		img.ContainerFormat = optional(value)
	case "visibility":
		v := value.(string)
		if v == "public" && img.Visibility != "public" {
			if err := allowAny(who, access.Publicize); err != nil {
				return err
			}
		}
		img.Visibility = v
	case "protected":
		img.Protected = value.(bool)
	case "os_hidden":
		img.Hidden = value.(bool)
	case "min_disk":
		img.MinDisk = number(value)
	case "min_ram":
		img.MinRAM = number(value)
	case "owner":
		return assignOwner(img, who, value)
	case "tags":
		return setTags(img, value.([]any))
	default:
		return setProperty(img, name, value)
	}
	return nil
}

func optional(value any) *string {
	if v, ok := value.(string); ok {
		return &v
	}
	return nil
}

// number is a checked integer: the schema's check has refused what does not fit.
func number(value any) int64 {
	n, _ := value.(json.Number).Int64()
	return n
}

// assignOwner: null is the caller's own project, for every image has an owner here.
func assignOwner(img *catalog.Image, who Identity, value any) error {
	owner := who.Project
	if v := optional(value); v != nil {
		owner = *v
	}
	if owner != img.Owner && allowAny(who, access.SetOwner) != nil {
		return fail(http.StatusForbidden, "You are not permitted to make '%s' the owner of images.", shorten(owner))
	}
	img.Owner = owner
	return nil
}

// setTags replaces them all; a tag that stands twice counts once, as in Glance.
func setTags(img *catalog.Image, values []any) error {
	var tags []string
	for _, v := range values {
		tags = append(tags, v.(string))
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > maxTags {
		return tooMany("tags", len(tags), maxTags)
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
	if n := len(img.Properties); n > maxProperties {
		return tooMany("properties", n, maxProperties)
	}
	return nil
}

func tooMany(what string, n, most int) error {
	return fail(http.StatusRequestEntityTooLarge, "The limit has been exceeded on the number of allowed image %s. Attempted: %d, Maximum: %d", what, n, most)
}
