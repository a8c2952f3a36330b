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

// replaceParts writes the properties, tags, locations and claims that differ from old's.
func replaceParts(ctx context.Context, tx *sql.Tx, pk int64, old, img records.Image) error {
	var fresh records.Image
	for _, p := range []struct {
		same  bool
		clear string
		take  func()
	}{
		{reflect.DeepEqual(old.Properties, img.Properties), `DELETE FROM properties WHERE image = ?`, func() { fresh.Properties = img.Properties }},
		{slices.Equal(old.Tags, img.Tags), `DELETE FROM tags WHERE image = ?`, func() { fresh.Tags = img.Tags }},
		{reflect.DeepEqual(old.Locations, img.Locations), `DELETE FROM locations WHERE image = ?`, func() { fresh.Locations = img.Locations }},
		{slices.Equal(old.Claims, img.Claims), `DELETE FROM claims WHERE image = ?`, func() { fresh.Claims = img.Claims }},
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
	for i, l := range img.Locations {
		meta := []byte("{}")
		if l.Metadata != nil {
			var err error
			if meta, err = json.Marshal(l.Metadata); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO locations VALUES (?, ?, ?, ?, ?, ?, ?)`, pk, i, l.Store, l.URL, l.Size, l.Version, string(meta)); err != nil {
			return err
		}
	}
	for i, c := range img.Claims {
		if _, err := tx.ExecContext(ctx, `INSERT INTO claims VALUES (?, ?, ?, ?)`, pk, i, c.Store, c.Claim); err != nil {
			return err
		}
	}
	return nil
}

// readParts fills in the properties, tags, locations and claims of rows, one query
// for each kind however many rows there are.
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
	for _, part := range []struct {
		query string // the first column is the image's pk
		take  func(*sql.Rows, map[int64]*records.Image) error
	}{
		{`SELECT image, name, value FROM properties WHERE image IN (SELECT value FROM json_each(?))`, takeProperty},
		{`SELECT image, tag FROM tags WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, tag`, takeTag},
		{`SELECT image, store, url, size, version, metadata FROM locations WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, position`, takeLocation},
		{`SELECT image, store, claim FROM claims WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, position`, takeClaim},
	} {
		found, err := tx.QueryContext(ctx, part.query, string(list))
		if err != nil {
			return err
		}
		for err == nil && found.Next() {
			err = part.take(found, byPK)
		}
		if err == nil {
			err = found.Err()
		}
		found.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func takeProperty(found *sql.Rows, byPK map[int64]*records.Image) error {
	var pk int64
	var name, value string
	if err := found.Scan(&pk, &name, &value); err != nil {
		return err
	}
	byPK[pk].Properties[name] = value
	return nil
}

func takeTag(found *sql.Rows, byPK map[int64]*records.Image) error {
	var pk int64
	var tag string
	if err := found.Scan(&pk, &tag); err != nil {
		return err
	}
	byPK[pk].Tags = append(byPK[pk].Tags, tag)
	return nil
}

func takeLocation(found *sql.Rows, byPK map[int64]*records.Image) error {
	var pk int64
	var l records.Location
	var meta string
	if err := found.Scan(&pk, &l.Store, &l.URL, &l.Size, &l.Version, &meta); err != nil {
		return err
	}
	if meta != "{}" {
		if err := json.Unmarshal([]byte(meta), &l.Metadata); err != nil {
			return fmt.Errorf("metadata of a location of image %s: %w", byPK[pk].ID, err)
		}
	}
	byPK[pk].Locations = append(byPK[pk].Locations, l)
	return nil
}

func takeClaim(found *sql.Rows, byPK map[int64]*records.Image) error {
	var pk int64
	var c records.Claim
	if err := found.Scan(&pk, &c.Store, &c.Claim); err != nil {
		return err
	}
	byPK[pk].Claims = append(byPK[pk].Claims, c)
	return nil
}
