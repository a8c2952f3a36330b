// Package catalog is what an image service knows: images, their status machine,
// quotas and changes; and it is where records, backends and formats meet: taking
// an image in, opening it, retiring it. It knows no protocol.
package catalog
