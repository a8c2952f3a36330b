package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"glanced/catalog/records"
)

// columns are those of table images that hold fields of records.Image, in the
// order of row.pointers.
const columns = `id, name, status, disk_format, container_format, visibility, owner,
	protected, hidden, min_disk, min_ram, size, virtual_size, allocated,
	checksum, hash_algo, hash_value, disk_error, created_at, updated_at, node, reserved,
	parent_id, parent_hash, snapshots`

// row is one row of images on its way in or out.
type row struct {
	pk               int64
	created, updated int64 // microseconds since 1970
	parent, hash     *string
	snapshots        string // JSON
	img              records.Image
}

// newRow is img on its way in.
func newRow(img records.Image) (row, error) {
	r := row{created: img.CreatedAt.UnixMicro(), updated: img.UpdatedAt.UnixMicro(), snapshots: "[]", img: img}
	if img.Parent != nil {
		r.parent, r.hash = &img.Parent.ID, &img.Parent.HashValue
	}
	if len(img.Snapshots) > 0 {
		text, err := json.Marshal(img.Snapshots)
		if err != nil {
			return row{}, err
		}
		r.snapshots = string(text)
	}
	return r, nil
}

func (r *row) pointers() []any {
	i := &r.img
	return []any{&i.ID, &i.Name, &i.Status, &i.DiskFormat, &i.ContainerFormat, &i.Visibility, &i.Owner,
		&i.Protected, &i.Hidden, &i.MinDisk, &i.MinRAM, &i.Size, &i.VirtualSize, &i.Allocated,
		&i.Checksum, &i.HashAlgo, &i.HashValue, &i.DiskError, &r.created, &r.updated, &i.Node, &i.Reserved,
		&r.parent, &r.hash, &r.snapshots}
}

func (r *row) scan(from interface{ Scan(...any) error }) error {
	if err := from.Scan(append([]any{&r.pk}, r.pointers()...)...); err != nil {
		return err
	}
	r.img.CreatedAt = time.UnixMicro(r.created).UTC()
	r.img.UpdatedAt = time.UnixMicro(r.updated).UTC()
	r.img.Properties = map[string]string{}
	if r.parent != nil && r.hash != nil {
		r.img.Parent = &records.Parent{ID: *r.parent, HashValue: *r.hash}
	}
	if r.snapshots != "[]" {
		if err := json.Unmarshal([]byte(r.snapshots), &r.img.Snapshots); err != nil {
			return fmt.Errorf("snapshots of image %s: %w", r.img.ID, err)
		}
	}
	return nil
}

// Create implements records.Store.
func (s *Store) Create(ctx context.Context, img records.Image) (records.Image, error) {
	img = normal(img)
	err := s.change(ctx, "create image "+img.ID, func(tx *sql.Tx) error {
		before, err := s.usage(ctx, tx, img.Owner)
		if err != nil {
			return err
		}
		pk, err := insertImage(ctx, tx, img)
		if err != nil {
			return err
		}
		if err := s.checkQuota(ctx, tx, img.Owner, before, 0); err != nil {
			return err
		}
		if err := insertParts(ctx, tx, pk, img); err != nil {
			return err
		}
		return s.log(ctx, tx, records.Created, img)
	})
	if err != nil {
		return records.Image{}, err
	}
	return img, nil
}

// Get implements records.Store.
func (s *Store) Get(ctx context.Context, id string) (records.Image, error) {
	var r row
	err := s.view(ctx, "get image "+id, func(tx *sql.Tx) (err error) {
		r, err = getImage(ctx, tx, id)
		return err
	})
	return r.img, err
}

// Update implements records.Store.
func (s *Store) Update(ctx context.Context, id string, change func(*records.Image) error) (records.Image, error) {
	var img records.Image
	err := s.change(ctx, "update image "+id, func(tx *sql.Tx) error {
		old, err := getImage(ctx, tx, id)
		if err != nil {
			return err
		}
		img = old.img.Clone()
		if err := change(&img); err != nil {
			return &plainError{err}
		}
		img.ID = id
		img = normal(img)
		if reflect.DeepEqual(img, old.img) {
			return nil
		}
		logged := !reflect.DeepEqual(visible(img), visible(old.img))
		if logged {
			img.UpdatedAt = now()
		}
		if err := checkParents(ctx, tx, old.img, img); err != nil {
			return err
		}
		before, err := s.usage(ctx, tx, img.Owner)
		if err != nil {
			return err
		}
		var own int64 // bytes of before that are this image's
		if old.img.Owner == img.Owner && old.img.Status != records.Deleted {
			own = old.img.Reserved
			if old.img.Size != nil {
				own += *old.img.Size
			}
		}
		if err := updateImage(ctx, tx, old.pk, img); err != nil {
			return err
		}
		if err := s.checkQuota(ctx, tx, img.Owner, before, own); err != nil {
			return err
		}
		if err := replaceParts(ctx, tx, old.pk, old.img, img); err != nil {
			return err
		}
		if !logged {
			return nil
		}
		kind := records.Updated
		if img.Status == records.Deleted && old.img.Status != records.Deleted {
			kind = records.Removed
		}
		return s.log(ctx, tx, kind, img)
	})
	if err != nil {
		return records.Image{}, err
	}
	return img, nil
}

// visible is img without what changes unseen: the upload fields, and what is known
// of its locations.
func visible(img records.Image) records.Image {
	img.Node, img.Reserved, img.Claims = "", 0, nil
	img.Locations = slices.Clone(img.Locations)
	for i := range img.Locations {
		img.Locations[i].Size, img.Locations[i].Version = 0, ""
	}
	return img
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// normal is img as it reads back: times in UTC microseconds, tags sorted and
// unique, no nil map, no empty slices.
func normal(img records.Image) records.Image {
	img = img.Clone()
	if img.CreatedAt.IsZero() {
		img.CreatedAt = now()
	}
	if img.UpdatedAt.IsZero() {
		img.UpdatedAt = img.CreatedAt
	}
	img.CreatedAt = img.CreatedAt.UTC().Truncate(time.Microsecond)
	img.UpdatedAt = img.UpdatedAt.UTC().Truncate(time.Microsecond)
	slices.Sort(img.Tags)
	img.Tags = slices.Compact(img.Tags)
	if len(img.Tags) == 0 {
		img.Tags = nil
	}
	if len(img.Snapshots) == 0 {
		img.Snapshots = nil
	}
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	for i := range img.Locations {
		if len(img.Locations[i].Metadata) == 0 {
			img.Locations[i].Metadata = nil
		}
	}
	if len(img.Locations) == 0 {
		img.Locations = nil
	}
	if len(img.Claims) == 0 {
		img.Claims = nil
	}
	return img
}

func getImage(ctx context.Context, tx *sql.Tx, id string) (row, error) {
	var r row
	err := r.scan(tx.QueryRowContext(ctx, `SELECT pk, `+columns+` FROM images WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, records.ErrNotFound
	}
	if err != nil {
		return row{}, err
	}
	rows := []*row{&r}
	return r, readParts(ctx, tx, rows)
}

func insertImage(ctx context.Context, tx *sql.Tx, img records.Image) (pk int64, err error) {
	r, err := newRow(img)
	if err != nil {
		return 0, err
	}
	values := r.pointers()
	res, err := tx.ExecContext(ctx, `INSERT INTO images (`+columns+`) VALUES (?`+strings.Repeat(", ?", len(values)-1)+`)`, values...)
	var se sqlite3.Error
	if errors.As(err, &se) && se.ExtendedCode == sqlite3.ErrConstraintUnique {
		return 0, records.ErrExists
	}
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

func updateImage(ctx context.Context, tx *sql.Tx, pk int64, img records.Image) error {
	r, err := newRow(img)
	if err != nil {
		return err
	}
	values := r.pointers()
	_, err = tx.ExecContext(ctx, `UPDATE images SET (`+columns+`) = (?`+strings.Repeat(", ?", len(values)-1)+`) WHERE pk = ?`, append(values, pk)...)
	return err
}
