package ctl

import (
	"net/http"
	"slices"

	"glanced/catalog"
)

// field is one attribute of an image as JSON: the same row is shown to clients
// in /v2/schemas/image and decides what a create or a patch may hold.
type field struct {
	name        string
	types       []string // JSON Schema types; "null" first, as Glance writes it
	description string
	readOnly    bool
	pattern     string // of strings
	maxLength   int    // of strings, in characters; 0 = none
	enum        []string
	items       map[string]any // of arrays
	// property: a custom property that is well known (Glance's is_base: false).
	// It is stored as any other, but its values are checked.
	property bool
	// unlisted: not in the schema. The glance command keeps a copy of the schema
	// and makes options of it; one called --stores it has already, and fails.
	unlisted bool
}

const uuidPattern = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"

const maxTagLength = 255 // characters

var (
	stringType     = []string{"string"}
	nullableString = []string{"null", "string"}
	boolType       = []string{"boolean"}
	intType        = []string{"integer"}
	nullableInt    = []string{"null", "integer"}
	arrayType      = []string{"array"}
)

// imageStatuses is the schema's order, which is Glance's.
var imageStatuses = []string{"queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"}

// imageFields follows Glance's schema of the image in all but the descriptions,
// which glanceclient shows as the help of its options.
func imageFields() []field {
	return []field{
		{name: "id", types: stringType, description: "The image's id, a UUID", pattern: uuidPattern},
		{name: "name", types: nullableString, description: "Name for people; need not be unique", maxLength: 255},
		{name: "status", types: stringType, readOnly: true, description: "Where the image stands in its life", enum: imageStatuses},
		{name: "visibility", types: stringType, description: "Who may see the image", enum: catalog.Visibilities},
		{name: "protected", types: boolType, description: "The image cannot be deleted while this is true"},
		{name: "os_hidden", types: boolType, description: "The image is left out of lists that do not ask for hidden ones"},
		{name: "checksum", types: nullableString, readOnly: true, description: "MD5 of the stored bytes, hexadecimal", maxLength: 32},
		{name: "os_hash_algo", types: nullableString, readOnly: true, description: "How os_hash_value was computed", maxLength: 64},
		{name: "os_hash_value", types: nullableString, readOnly: true, description: "Hash of the stored bytes by os_hash_algo, hexadecimal", maxLength: 128},
		{name: "owner", types: nullableString, description: "Id of the project that owns the image", maxLength: 255},
		{name: "size", types: nullableInt, readOnly: true, description: "Length of the stored bytes"},
		{name: "virtual_size", types: nullableInt, readOnly: true, description: "Size of the guest disk in bytes"},
		{name: "container_format", types: nullableString, description: "What the disk is wrapped in", enum: catalog.ContainerFormats},
		{name: "disk_format", types: nullableString, description: "How the disk is encoded", enum: catalog.DiskFormats},
		{name: "created_at", types: stringType, readOnly: true, description: "When the image was registered"},
		{name: "updated_at", types: stringType, readOnly: true, description: "When the image last changed"},
		{name: "tags", types: arrayType, description: "Labels", items: map[string]any{"type": "string", "maxLength": maxTagLength}},
		{name: "direct_url", types: stringType, readOnly: true, description: "Where the stored bytes lie"},
		{name: "min_ram", types: intType, description: "Memory that a machine needs to boot it, MiB"},
		{name: "min_disk", types: intType, description: "Disk that a machine needs to boot it, GiB"},
		{name: "self", types: stringType, readOnly: true, description: "Path of this document"},
		{name: "file", types: stringType, readOnly: true, description: "Path of the stored bytes"},
		{name: "stores", types: stringType, readOnly: true, unlisted: true},
		{name: "schema", types: stringType, readOnly: true, description: "Path of this schema"},
		{name: "locations", types: arrayType, description: "Where the stored bytes lie, each copy", items: locationSchema()},
		{name: "kernel_id", types: nullableString, pattern: uuidPattern, property: true, description: "Image to boot as the kernel (AMI style)"},
		{name: "ramdisk_id", types: nullableString, pattern: uuidPattern, property: true, description: "Image to boot as the ramdisk (AMI style)"},
		{name: "instance_uuid", types: stringType, property: true, description: "Instance that the image belongs to; a note only"},
		{name: "architecture", types: stringType, property: true, description: "Processor architecture, such as x86_64"},
		{name: "os_distro", types: stringType, property: true, description: "Distribution, such as debian"},
		{name: "os_version", types: stringType, property: true, description: "Version of the distribution"},
		{name: "description", types: stringType, property: true, description: "What the image is, for people"},
		{name: "cinder_encryption_key_id", types: stringType, property: true, description: "Key that Cinder needs for volumes made of the image"},
		{name: "cinder_encryption_key_deletion_policy", types: stringType, property: true, enum: []string{"on_image_deletion", "do_not_delete"},
			description: "When that key is deleted"},
	}
}

// locationSchema stays in the schema although locations are not shown: models
// that clients build from the schema expect the attribute.
func locationSchema() map[string]any {
	return map[string]any{
		"type":     "object",
		"required": []string{"url", "metadata"},
		"properties": map[string]any{
			"url":      map[string]any{"type": "string", "maxLength": 255},
			"metadata": map[string]any{"type": "object"},
			"validation_data": map[string]any{
				"description":          "Checksums to take over; of an image that has them, they must be equal",
				"type":                 "object",
				"writeOnly":            true,
				"additionalProperties": false,
				"required":             []string{"os_hash_algo", "os_hash_value"},
				"properties": map[string]any{
					"checksum":      map[string]any{"type": "string", "minLength": 32, "maxLength": 32},
					"os_hash_algo":  map[string]any{"type": "string", "maxLength": 64},
					"os_hash_value": map[string]any{"type": "string", "maxLength": 128},
				},
			},
		},
	}
}

// json is f as a JSON Schema property.
func (f field) json() map[string]any {
	p := map[string]any{"description": f.description}
	if len(f.types) == 1 {
		p["type"] = f.types[0]
	} else {
		p["type"] = f.types
	}
	if f.readOnly {
		p["readOnly"] = true
	}
	if f.pattern != "" {
		p["pattern"] = f.pattern
	}
	if f.maxLength > 0 {
		p["maxLength"] = f.maxLength
	}
	if f.enum != nil {
		p["enum"] = f.choices()
	}
	if f.items != nil {
		p["items"] = f.items
	}
	if f.property {
		p["is_base"] = false
	}
	return p
}

// choices is the enum with null where null is allowed.
func (f field) choices() []any {
	var all []any
	if slices.Contains(f.types, "null") {
		all = append(all, nil)
	}
	for _, e := range f.enum {
		all = append(all, e)
	}
	return all
}

// schemas is the table, by name, and the two documents made of it.
type schemas struct {
	fields map[string]field
	image  map[string]any
	images map[string]any
}

func newSchemas() schemas {
	fields, properties := map[string]field{}, map[string]any{}
	for _, f := range imageFields() {
		fields[f.name] = f
		if !f.unlisted {
			properties[f.name] = f.json()
		}
	}
	image := map[string]any{
		"name":                 "image",
		"properties":           properties,
		"additionalProperties": map[string]any{"type": "string"},
		"links":                []link{{"self", "{self}"}, {"enclosure", "{file}"}, {"describedby", "{schema}"}},
	}
	return schemas{
		fields: fields,
		image:  image,
		images: map[string]any{
			"name": "images",
			"properties": map[string]any{
				"images": map[string]any{"type": "array", "items": image},
				"schema": map[string]any{"type": "string"},
				"next":   map[string]any{"type": "string"},
				"first":  map[string]any{"type": "string"},
			},
			"links": []link{{"first", "{first}"}, {"next", "{next}"}, {"describedby", "{schema}"}},
		},
	}
}

// isBase says whether name is an attribute of every image, not a custom property.
func (s schemas) isBase(name string) bool {
	f, ok := s.fields[name]
	return ok && !f.property
}

func (s *Server) imageSchema(w http.ResponseWriter, r *http.Request, _ Identity) error {
	return answerJSON(w, http.StatusOK, s.schemas.image)
}

func (s *Server) imagesSchema(w http.ResponseWriter, r *http.Request, _ Identity) error {
	return answerJSON(w, http.StatusOK, s.schemas.images)
}
