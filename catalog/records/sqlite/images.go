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
	checksum, hash_algo, hash_value, disk_error, created_at, updated_at, node, reserved`

// row is one row of images on its way in or out.
type row struct {
	pk               int64
	created, updated int64 // microseconds since 1970
	img              records.Image
}

func (r *row) pointers() []any {
	i := &r.img
	return []any{&i.ID, &i.Name, &i.Status, &i.DiskFormat, &i.ContainerFormat, &i.Visibility, &i.Owner,
		&i.Protected, &i.Hidden, &i.MinDisk, &i.MinRAM, &i.Size, &i.VirtualSize, &i.Allocated,
		&i.Checksum, &i.HashAlgo, &i.HashValue, &i.DiskError, &r.created, &r.updated, &i.Node, &i.Reserved}
}

func (r *row) scan(from interface{ Scan(...any) error }) error {
	if err := from.Scan(append([]any{&r.pk}, r.pointers()...)...); err != nil {
		return err
	}
	r.img.CreatedAt = time.UnixMicro(r.created).UTC()
	r.img.UpdatedAt = time.UnixMicro(r.updated).UTC()
	r.img.Properties = map[string]string{}
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
		logged := !reflect.DeepEqual(withoutUpload(img), withoutUpload(old.img))
		if logged {
			img.UpdatedAt = now()
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

func withoutUpload(img records.Image) records.Image {
	img.Node, img.Reserved, img.Pending = "", 0, nil
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
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	normalLocations := func(ls []records.Location) []records.Location {
		for i := range ls {
			if len(ls[i].Metadata) == 0 {
				ls[i].Metadata = nil
			}
		}
		if len(ls) == 0 {
			return nil
		}
		return ls
	}
	img.Locations = normalLocations(img.Locations)
	img.Pending = normalLocations(img.Pending)
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
	r := row{created: img.CreatedAt.UnixMicro(), updated: img.UpdatedAt.UnixMicro(), img: img}
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
	r := row{created: img.CreatedAt.UnixMicro(), updated: img.UpdatedAt.UnixMicro(), img: img}
	values := r.pointers()
	_, err := tx.ExecContext(ctx, `UPDATE images SET (`+columns+`) = (?`+strings.Repeat(", ?", len(values)-1)+`) WHERE pk = ?`, append(values, pk)...)
	return err
}

// replaceParts writes the properties, tags and locations that differ from old's.
func replaceParts(ctx context.Context, tx *sql.Tx, pk int64, old, img records.Image) error {
	var fresh records.Image
	for _, p := range []struct {
		same  bool
		clear string
		take  func()
	}{
		{reflect.DeepEqual(old.Properties, img.Properties), `DELETE FROM properties WHERE image = ?`, func() { fresh.Properties = img.Properties }},
		{slices.Equal(old.Tags, img.Tags), `DELETE FROM tags WHERE image = ?`, func() { fresh.Tags = img.Tags }},
		{reflect.DeepEqual(old.Locations, img.Locations), `DELETE FROM locations WHERE image = ? AND pending = 0`, func() { fresh.Locations = img.Locations }},
		{reflect.DeepEqual(old.Pending, img.Pending), `DELETE FROM locations WHERE image = ? AND pending = 1`, func() { fresh.Pending = img.Pending }},
	} {
		if p.same {
			continue
		}
		if _, err := tx.ExecContext(ctx, p.clear, pk); err != nil {
			return err
		}
		p.take()
	}
	return insertParts(ctx, tx, pk, fresh)
}

func insertParts(ctx context.Context, tx *sql.Tx, pk int64, img records.Image) error {
	for name, value := range img.Properties {
		if _, err := tx.ExecContext(ctx, `INSERT INTO properties VALUES (?, ?, ?)`, pk, name, value); err != nil {
			return err
		}
	}
	for _, tag := range img.Tags {
		if _, err := tx.ExecContext(ctx, `INSERT INTO tags VALUES (?, ?)`, pk, tag); err != nil {
			return err
		}
	}
	for pending, ls := range [][]records.Location{img.Locations, img.Pending} {
		for i, l := range ls {
			meta := []byte("{}")
			if l.Metadata != nil {
				var err error
				if meta, err = json.Marshal(l.Metadata); err != nil {
					return err
				}
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO locations VALUES (?, ?, ?, ?, ?, ?)`, pk, pending, i, l.Store, l.URL, string(meta)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readParts fills in the properties, tags and locations of rows, one query for
// each kind however many rows there are.
func readParts(ctx context.Context, tx *sql.Tx, rows []*row) error {
	if len(rows) == 0 {
		return nil
	}
	byPK := make(map[int64]*records.Image, len(rows))
	pks := make([]int64, len(rows))
	for i, r := range rows {
		byPK[r.pk], pks[i] = &r.img, r.pk
	}
	list, err := json.Marshal(pks)
	if err != nil {
		return err
	}
	each := func(query string, scan func(*sql.Rows) error) error {
		found, err := tx.QueryContext(ctx, query, string(list))
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			if err := scan(found); err != nil {
				return err
			}
		}
		return found.Err()
	}
	err = each(`SELECT image, name, value FROM properties WHERE image IN (SELECT value FROM json_each(?))`, func(f *sql.Rows) error {
		var pk int64
		var name, value string
		if err := f.Scan(&pk, &name, &value); err != nil {
			return err
		}
		byPK[pk].Properties[name] = value
		return nil
	})
	if err != nil {
		return err
	}
	err = each(`SELECT image, tag FROM tags WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, tag`, func(f *sql.Rows) error {
		var pk int64
		var tag string
		if err := f.Scan(&pk, &tag); err != nil {
			return err
		}
		byPK[pk].Tags = append(byPK[pk].Tags, tag)
		return nil
	})
	if err != nil {
		return err
	}
	return each(`SELECT image, pending, store, url, metadata FROM locations WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, pending, position`, func(f *sql.Rows) error {
		var pk int64
		var pending bool
		var l records.Location
		var meta string
		if err := f.Scan(&pk, &pending, &l.Store, &l.URL, &meta); err != nil {
			return err
		}
		if meta != "{}" {
			if err := json.Unmarshal([]byte(meta), &l.Metadata); err != nil {
				return fmt.Errorf("metadata of a location of image %s: %w", byPK[pk].ID, err)
			}
		}
		if pending {
			byPK[pk].Pending = append(byPK[pk].Pending, l)
		} else {
			byPK[pk].Locations = append(byPK[pk].Locations, l)
		}
		return nil
	})
}
