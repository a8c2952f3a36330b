package fields

import (
	"glanced/catalog/access"
	"glanced/catalog/records"
)

type (
	image = records.Image
	query = records.Query
)

// none is a decision: no attribute in the mounted tree.
var none = []string{}

func table() (all []*Field) {
	for _, part := range [][]Field{ofUsers(), ofSizes(), ofData(), links(), ofService(), wellKnown(), internal()} {
		for i := range part {
			all = append(all, &part[i])
		}
	}
	return all
}

// ofUsers are what the image is called, whose it is, and what users say of it.
// catalog/access says who may make one public, and who may give one to another project.
func ofUsers() []Field {
	return []Field{
		{Name: "id", Listing: Base, Description: "The image's id, a UUID",
			Kind: Text, Pattern: uuidPattern, Shape: aUUID,
			Writer: Creator, Showing: Always, Xattr: []string{"id"}, Storage: column("id"), Filter: OneOf, Sort: 6,
			at: func(i *image) any { return &i.ID }, condition: func(q *query) any { return &q.ID }},
		{Name: "name", Listing: Base, Description: "Name for people; need not be unique",
			Kind: Text, Null: true, MaxLength: maxText,
			Writer: Editor, Showing: Always, Xattr: []string{"name"}, Storage: nullable("name"), Filter: OneOf, Sort: 1,
			at: func(i *image) any { return &i.Name }, condition: func(q *query) any { return &q.Name }},
		{Name: "status", Listing: Base, Description: "Where the image stands in its life",
			Kind: Text, Words: statuses,
			Writer: Nobody, Showing: Always, Xattr: []string{"status"}, Storage: column("status"), Filter: OneOf, Sort: 2,
			at: func(i *image) any { return &i.Status }, condition: func(q *query) any { return &q.Status }},
		{Name: "visibility", Listing: Base, Description: "Who may see the image",
			Kind: Text, Words: access.Visibilities,
			Writer: Editor, Showing: Always, Xattr: []string{"visibility"}, Storage: column("visibility"), Filter: Visible, Sort: Unsorted,
			at: func(i *image) any { return &i.Visibility }, condition: func(q *query) any { return &q.Among }},
		{Name: "owner", Listing: Base, Description: "Id of the project that owns the image",
			Kind: Text, Null: true, MaxLength: maxText,
			Writer: Administrator, Showing: Always, Xattr: []string{"owner"}, Storage: column("owner"), Filter: Exact, Sort: Unsorted,
			at: func(i *image) any { return &i.Owner }, condition: func(q *query) any { return &q.Owner }},
		{Name: "protected", Listing: Base, Description: "The image cannot be deleted while this is true",
			Kind:   Boolean,
			Writer: Editor, Showing: Always, Xattr: []string{"protected"}, Storage: column("protected"), Filter: Truth, Sort: Unsorted,
			at: func(i *image) any { return &i.Protected }, condition: func(q *query) any { return &q.Protected }},
		{Name: "os_hidden", Listing: Base, Description: "The image is left out of lists that do not ask for hidden ones",
			Kind:   Boolean,
			Writer: Editor, Showing: Always, Xattr: []string{"os_hidden"}, Storage: column("hidden"), Filter: Truth, Sort: Unsorted,
			at: func(i *image) any { return &i.Hidden }, condition: func(q *query) any { return &q.Hidden }},
		{Name: "tags", Listing: Base, Description: "Labels",
			Kind: List, MaxLength: maxText, MaxItems: MaxTags,
			Writer: Editor, Showing: Always, Xattr: []string{"tags"}, Storage: parts("tags"), Filter: AllOf, Param: "tag", Sort: Unsorted,
			at: func(i *image) any { return &i.Tags }, condition: func(q *query) any { return &q.Tags }},
		{Name: "disk_format", Listing: Base, Description: "How the disk is encoded",
			Kind: Text, Null: true, Words: diskFormats,
			Writer: Editor, Fixed: true, Showing: Always, Xattr: []string{"disk_format"}, Storage: nullable("disk_format"), Filter: OneOf, Sort: 4,
			at: func(i *image) any { return &i.DiskFormat }, condition: func(q *query) any { return &q.DiskFormat }},
		{Name: "container_format", Listing: Base, Description: "What the disk is wrapped in",
			Kind: Text, Null: true, Words: containerFormats,
			Writer: Editor, Fixed: true, Showing: Always, Xattr: []string{"container_format"}, Storage: nullable("container_format"), Filter: OneOf, Sort: 3,
			at: func(i *image) any { return &i.ContainerFormat }, condition: func(q *query) any { return &q.ContainerFormat }},
	}
}

// ofSizes are how long it is, and what a machine needs to boot it.
func ofSizes() []Field {
	return []Field{
		{Name: "size", Listing: Base, Description: "Length of the stored bytes",
			Kind: Integer, Null: true, Bytes: true,
			Writer: Nobody, Showing: Always, Xattr: []string{"size"}, Storage: nullable("size"), Filter: Numbers, Sort: 5,
			at: func(i *image) any { return &i.Size }, condition: func(q *query) any { return &q.Size }},
		{Name: "virtual_size", Listing: Base, Description: "Size of the guest disk in bytes",
			Kind: Integer, Null: true, Bytes: true,
			Writer: Nobody, Showing: Always, Xattr: []string{"virtual_size"}, Storage: nullable("virtual_size"), Filter: Numbers, Sort: Unsorted,
			at: func(i *image) any { return &i.VirtualSize }, condition: func(q *query) any { return &q.VirtualSize }},
		{Name: "min_disk", Listing: Base, Description: "Disk that a machine needs to boot it, GiB",
			Kind: Integer, Max: maxMinimum,
			Writer: Editor, Showing: Always, Xattr: []string{"min_disk"}, Storage: column("min_disk"), Filter: Numbers, Sort: Unsorted,
			at: func(i *image) any { return &i.MinDisk }, condition: func(q *query) any { return &q.MinDisk }},
		{Name: "min_ram", Listing: Base, Description: "Memory that a machine needs to boot it, MiB",
			Kind: Integer, Max: maxMinimum,
			Writer: Editor, Showing: Always, Xattr: []string{"min_ram"}, Storage: column("min_ram"), Filter: Numbers, Sort: Unsorted,
			at: func(i *image) any { return &i.MinRAM }, condition: func(q *query) any { return &q.MinRAM }},
	}
}

// ofData are what the service computes of the image's bytes, and when it did something.
func ofData() []Field {
	return []Field{
		{Name: "checksum", Listing: Base, Description: "MD5 of the stored bytes, hexadecimal",
			Kind: Text, Null: true, MaxLength: 32,
			Writer: Nobody, Showing: Always, Xattr: []string{"checksum"}, Storage: nullable("checksum"), Filter: Exact, Sort: Unsorted,
			at: func(i *image) any { return &i.Checksum }, condition: func(q *query) any { return &q.Checksum }},
		{Name: "os_hash_algo", Listing: Base, Description: "How os_hash_value was computed",
			Kind: Text, Null: true, MaxLength: 64,
			Writer: Nobody, Showing: Always, Xattr: []string{"os_hash_algo"}, Storage: nullable("hash_algo"), Filter: Exact, Sort: Unsorted,
			at: func(i *image) any { return &i.HashAlgo }, condition: func(q *query) any { return &q.HashAlgo }},
		{Name: "os_hash_value", Listing: Base, Description: "Hash of the stored bytes by os_hash_algo, hexadecimal",
			Kind: Text, Null: true, MaxLength: 128,
			Writer: Nobody, Showing: Always, Xattr: []string{"os_hash_value"}, Storage: nullable("hash_value"), Filter: Exact, Sort: Unsorted,
			at: func(i *image) any { return &i.HashValue }, condition: func(q *query) any { return &q.HashValue }},
		{Name: "created_at", Listing: Base, Description: "When the image was registered",
			Kind:   Time,
			Writer: Nobody, Showing: Always, Xattr: []string{"created_at"}, Storage: column("created_at"), Filter: Times, Sort: 7,
			at: func(i *image) any { return &i.CreatedAt }, condition: func(q *query) any { return &q.CreatedAt }},
		{Name: "updated_at", Listing: Base, Description: "When the image last changed",
			Kind:   Time,
			Writer: Nobody, Showing: Always, Xattr: []string{"updated_at"}, Storage: column("updated_at"), Filter: Times, Sort: 8,
			at: func(i *image) any { return &i.UpdatedAt }, condition: func(q *query) any { return &q.UpdatedAt }},
	}
}

// ofService are what this service says beside Glance's fields, under the prefix that
// Glance keeps for that. The schema names none of them, as it names none of Glance's own.
func ofService() []Field {
	return []Field{
		// The tree had it as disk_error before it had the API's name.
		{Name: "os_glance_disk_error", Listing: Unlisted, Kind: Text, Null: true,
			Writer: Service, Showing: Present, Xattr: []string{"os_glance_disk_error", "disk_error"}, Storage: column("disk_error"), Filter: Unfiltered, Sort: Unsorted,
			at: func(i *image) any { return &i.DiskError }},
		{Name: "os_glance_backing_image", Listing: Unlisted, Kind: Text, Null: true,
			Writer: Service, Showing: Present, Xattr: []string{"os_glance_backing_image"}, Storage: nullable("parent_id", "parent_hash"), Filter: Unfiltered, Sort: Unsorted,
			at: func(i *image) any { return &i.Parent }, read: backingImage},
		{Name: "os_glance_snapshots", Listing: Unlisted, Kind: Text, Null: true,
			Writer: Service, Showing: Present, Xattr: []string{"os_glance_snapshots"}, Storage: column("snapshots"), Filter: Unfiltered, Sort: Unsorted,
			at: func(i *image) any { return &i.Snapshots }, read: snapshots},
	}
}

// links are where the image lies, and paths of the API. Locations and direct_url are in the
// schema, for models that clients build from it expect them, and are not shown: they name
// paths and credentials of the stores (OSSN-0065, OSSN-0090), and Glance's defaults hide them
// too. The schema does not name stores: the glance command keeps a copy of it and makes
// options of its fields, and one called --stores it has already, and fails.
func links() []Field {
	return []Field{
		{Name: "stores", Listing: Unlisted, Kind: Text, Null: true,
			Writer: Nobody, Showing: Present, Xattr: []string{"stores"}, Storage: made, Filter: Unfiltered, Sort: Unsorted,
			read: stores},
		{Name: "direct_url", Listing: Base, Link: true, Description: "Where the stored bytes lie", Kind: Text,
			Writer: Nobody, Showing: Never, Xattr: none, Storage: made, Filter: Unfiltered, Sort: Unsorted,
			read: func(*image) Value { return textOrNull("") }},
		{Name: "locations", Listing: Base, Link: true, Description: "Where the stored bytes lie, each copy", Kind: Opaque,
			Writer: Service, Showing: Never, Xattr: none, Storage: parts("locations"), Filter: Unfiltered, Sort: Unsorted,
			at: func(i *image) any { return &i.Locations }},
		{Name: "self", Listing: Base, Link: true, Description: "Path of this document", Kind: Text,
			Writer: Nobody, Showing: Always, Xattr: none, Storage: made, Filter: Unfiltered, Sort: Unsorted,
			read: self},
		{Name: "file", Listing: Base, Link: true, Description: "Path of the stored bytes", Kind: Text,
			Writer: Nobody, Showing: Always, Xattr: none, Storage: made, Filter: Unfiltered, Sort: Unsorted,
			read: file},
		{Name: "schema", Listing: Base, Link: true, Description: "Path of this schema", Kind: Text,
			Writer: Nobody, Showing: Always, Xattr: none, Storage: made, Filter: Unfiltered, Sort: Unsorted,
			read: schema},
	}
}

// wellKnown are custom properties that Glance's schema describes.
func wellKnown() []Field {
	known := []Field{
		{Name: "kernel_id", Null: true, Pattern: uuidPattern, Shape: aUUID, Description: "Image to boot as the kernel (AMI style)"},
		{Name: "ramdisk_id", Null: true, Pattern: uuidPattern, Shape: aUUID, Description: "Image to boot as the ramdisk (AMI style)"},
		{Name: "instance_uuid", Description: "Instance that the image belongs to; a note only"},
		{Name: "architecture", Description: "Processor architecture, such as x86_64"},
		{Name: "os_distro", Description: "Distribution, such as debian"},
		{Name: "os_version", Description: "Version of the distribution"},
		{Name: "description", Description: "What the image is, for people"},
		{Name: "cinder_encryption_key_id", Description: "Key that Cinder needs for volumes made of the image"},
		{Name: "cinder_encryption_key_deletion_policy", Words: []string{"on_image_deletion", "do_not_delete"}, Description: "When that key is deleted"},
	}
	for i := range known {
		known[i].asProperty()
	}
	return known
}

// asProperty decides of f what holds for every custom property.
func (f *Field) asProperty() {
	f.Listing, f.Kind, f.Writer, f.Showing = Property, Text, Editor, Present
	f.Xattr, f.Storage, f.Filter, f.Sort = []string{f.Name}, parts("properties"), Unfiltered, Unsorted
	f.read = func(i *image) Value {
		s, ok := i.Properties[f.Name]
		return Value{Kind: Text, Text: s, Null: !ok}
	}
}

// internal are what the catalog keeps for itself, and the custom properties as a whole,
// which the doors show one by one.
func internal() []Field {
	kept := []Field{
		{Name: "properties", Kind: Opaque, MaxItems: MaxProperties, Writer: Editor, Storage: parts("properties"),
			at: func(i *image) any { return &i.Properties }},
		{Name: "allocated", Kind: Integer, Null: true, Writer: Nobody, Storage: nullable("allocated"), at: func(i *image) any { return &i.Allocated }},
		{Name: "node", Kind: Text, Writer: Nobody, Storage: column("node"), at: func(i *image) any { return &i.Node }},
		{Name: "reserved", Kind: Integer, Writer: Nobody, Storage: column("reserved"), at: func(i *image) any { return &i.Reserved }},
		{Name: "claims", Kind: Opaque, Writer: Nobody, Storage: parts("claims"), at: func(i *image) any { return &i.Claims }},
	}
	for i := range kept {
		f := &kept[i]
		f.Listing, f.Showing, f.Xattr, f.Filter, f.Sort = Internal, Never, none, Unfiltered, Unsorted
	}
	return kept
}
