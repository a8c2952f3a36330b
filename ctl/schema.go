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

// imageFields follows Glance's schema of the image; descriptions too, because
// glanceclient shows them as the help of its options.
func imageFields() []field {
	return []field{
		{name: "id", types: stringType, description: "An identifier for the image", pattern: uuidPattern},
		{name: "name", types: nullableString, description: "Descriptive name for the image", maxLength: 255},
		{name: "status", types: stringType, readOnly: true, description: "Status of the image", enum: imageStatuses},
		{name: "visibility", types: stringType, description: "Scope of image accessibility", enum: catalog.Visibilities},
		{name: "protected", types: boolType, description: "If true, image will not be deletable."},
		{name: "os_hidden", types: boolType, description: "If true, image will not appear in default image list response."},
		{name: "checksum", types: nullableString, readOnly: true, description: "md5 hash of image contents.", maxLength: 32},
		{name: "os_hash_algo", types: nullableString, readOnly: true, description: "Algorithm to calculate the os_hash_value", maxLength: 64},
		{name: "os_hash_value", types: nullableString, readOnly: true, description: "Hexdigest of the image contents using the algorithm specified by the os_hash_algo", maxLength: 128},
		{name: "owner", types: nullableString, description: "Owner of the image", maxLength: 255},
		{name: "size", types: nullableInt, readOnly: true, description: "Size of image file in bytes"},
		{name: "virtual_size", types: nullableInt, readOnly: true, description: "Virtual size of image in bytes"},
		{name: "container_format", types: nullableString, description: "Format of the container", enum: catalog.ContainerFormats},
		{name: "disk_format", types: nullableString, description: "Format of the disk", enum: catalog.DiskFormats},
		{name: "created_at", types: stringType, readOnly: true, description: "Date and time of image registration"},
		{name: "updated_at", types: stringType, readOnly: true, description: "Date and time of the last image modification"},
		{name: "tags", types: arrayType, description: "List of strings related to the image", items: map[string]any{"type": "string", "maxLength": maxTagLength}},
		{name: "direct_url", types: stringType, readOnly: true, description: "URL to access the image file kept in external store"},
		{name: "min_ram", types: intType, description: "Amount of ram (in MB) required to boot image."},
		{name: "min_disk", types: intType, description: "Amount of disk space (in GB) required to boot image."},
		{name: "self", types: stringType, readOnly: true, description: "An image self url"},
		{name: "file", types: stringType, readOnly: true, description: "An image file url"},
		{name: "stores", types: stringType, readOnly: true, description: "Store in which image data resides.  Only present when the operator has enabled multiple stores.  May be a comma-separated list of store identifiers."},
		{name: "schema", types: stringType, readOnly: true, description: "An image schema url"},
		{name: "locations", types: arrayType, description: "A set of URLs to access the image file kept in external store", items: locationSchema()},
		{name: "kernel_id", types: nullableString, pattern: uuidPattern, property: true, description: "ID of image stored in Glance that should be used as the kernel when booting an AMI-style image."},
		{name: "ramdisk_id", types: nullableString, pattern: uuidPattern, property: true, description: "ID of image stored in Glance that should be used as the ramdisk when booting an AMI-style image."},
		{name: "instance_uuid", types: stringType, property: true, description: "Metadata which can be used to record which instance this image is associated with. (Informational only, does not create an instance snapshot.)"},
		{name: "architecture", types: stringType, property: true, description: "Operating system architecture as specified in https://docs.openstack.org/python-glanceclient/latest/cli/property-keys.html"},
		{name: "os_distro", types: stringType, property: true, description: "Common name of operating system distribution as specified in https://docs.openstack.org/python-glanceclient/latest/cli/property-keys.html"},
		{name: "os_version", types: stringType, property: true, description: "Operating system version as specified by the distributor."},
		{name: "description", types: stringType, property: true, description: "A human-readable string describing this image."},
		{name: "cinder_encryption_key_id", types: stringType, property: true, description: "Identifier in the OpenStack Key Management Service for the encryption key for the Block Storage Service to use when mounting a volume created from this image"},
		{name: "cinder_encryption_key_deletion_policy", types: stringType, property: true, enum: []string{"on_image_deletion", "do_not_delete"},
			description: "States the condition under which the Image Service will delete the object associated with the 'cinder_encryption_key_id' image property.  If this property is missing, the Image Service will take no action"},
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
				"description":          "Values to be used to populate the corresponding image properties. If the image status is not 'queued', values must exactly match those already contained in the image properties.",
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
		properties[f.name] = f.json()
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
