package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"glanced/catalog/records"
)

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
