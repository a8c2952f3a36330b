package ctl

import (
	"net/http"

	"glanced/catalog/fields"
)

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

// jsonTypes are the types of f's values in JSON Schema, "null" first, as Glance writes it.
func jsonTypes(f *fields.Field) []string {
	var types []string
	if f.Null {
		types = append(types, "null")
	}
	switch f.Kind {
	case fields.Integer:
		return append(types, "integer")
	case fields.Boolean:
		return append(types, "boolean")
	case fields.List, fields.Opaque:
		return append(types, "array")
	}
	return append(types, "string")
}

// choices are f's words, with null where null is allowed.
func choices(f *fields.Field) []any {
	var all []any
	if f.Null {
		all = append(all, nil)
	}
	for _, w := range f.Words {
		all = append(all, w)
	}
	return all
}

// items is the schema of what stands in f, an array.
func items(f *fields.Field) map[string]any {
	if f.Kind == fields.List {
		return map[string]any{"type": "string", "maxLength": f.MaxLength}
	}
	return locationSchema()
}

// schemaOf is f as a JSON Schema property.
func schemaOf(f *fields.Field) map[string]any {
	types := jsonTypes(f)
	p := map[string]any{"description": f.Description, "type": types}
	if len(types) == 1 {
		p["type"] = types[0]
	}
	if f.Writer == fields.Nobody {
		p["readOnly"] = true
	}
	if f.Pattern != "" {
		p["pattern"] = f.Pattern
	}
	if f.Kind == fields.Text && f.MaxLength > 0 {
		p["maxLength"] = f.MaxLength
	}
	if f.Words != nil {
		p["enum"] = choices(f)
	}
	if types[0] == "array" {
		p["items"] = items(f)
	}
	if f.Listing == fields.Property {
		p["is_base"] = false
	}
	return p
}

// schemas are the documents of the schema, which are Glance's in all but the descriptions:
// those glanceclient shows as the help of its options.
type schemas struct {
	image  map[string]any
	images map[string]any
}

func newSchemas() schemas {
	properties := map[string]any{}
	for _, f := range fields.All() {
		if f.Listing == fields.Base || f.Listing == fields.Property {
			properties[f.Name] = schemaOf(f)
		}
	}
	image := map[string]any{
		"name":                 "image",
		"properties":           properties,
		"additionalProperties": map[string]any{"type": "string"},
		"links":                []link{{"self", "{self}"}, {"enclosure", "{file}"}, {"describedby", "{schema}"}},
	}
	return schemas{
		image: image,
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

func (s *Server) imageSchema(w http.ResponseWriter, r *http.Request, _ Identity) error {
	return answerJSON(w, http.StatusOK, s.schemas.image)
}

func (s *Server) imagesSchema(w http.ResponseWriter, r *http.Request, _ Identity) error {
	return answerJSON(w, http.StatusOK, s.schemas.images)
}
