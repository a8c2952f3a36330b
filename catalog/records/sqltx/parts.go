package sqltx

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"glanced/catalog/records"
)

// replaceParts writes the properties, tags, locations and claims that differ from old's.
func (t *tx) replaceParts(ctx context.Context, pk int64, old, img records.Image) error {
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
		if err := t.exec(ctx, p.clear, pk); err != nil {
			return err
		}
		p.take()
	}
	return t.insertParts(ctx, pk, fresh)
}

func (t *tx) insertParts(ctx context.Context, pk int64, img records.Image) error {
	var properties, tags, locations, claims [][]any
	for _, name := range slices.Sorted(maps.Keys(img.Properties)) {
		properties = append(properties, []any{pk, name, img.Properties[name]})
	}
	for _, tag := range img.Tags {
		tags = append(tags, []any{pk, tag})
	}
	for i, l := range img.Locations {
		meta := []byte("{}")
		if l.Metadata != nil {
			var err error
			if meta, err = json.Marshal(l.Metadata); err != nil {
				return err
			}
		}
		locations = append(locations, []any{pk, i, l.Store, l.URL, l.Size, l.Version, string(meta)})
	}
	for i, c := range img.Claims {
		claims = append(claims, []any{pk, i, c.Store, c.Claim})
	}
	for _, part := range []struct {
		into string
		rows [][]any
	}{
		{`properties (image, name, value)`, properties},
		{`tags (image, tag)`, tags},
		{`locations (image, position, store, url, size, version, metadata)`, locations},
		{`claims (image, position, store, claim)`, claims},
	} {
		if err := t.insertAll(ctx, part.into, part.rows); err != nil {
			return err
		}
	}
	return nil
}

// insertStep is how many rows one statement inserts: its parameters are bounded.
const insertStep = 500

func (t *tx) insertAll(ctx context.Context, into string, rows [][]any) error {
	for some := range slices.Chunk(rows, insertStep) {
		row := "(" + marks(len(some[0])) + ")"
		err := t.exec(ctx, `INSERT INTO `+into+` VALUES `+row+strings.Repeat(", "+row, len(some)-1), slices.Concat(some...)...)
		if err != nil {
			return err
		}
	}
	return nil
}

// readParts fills in the properties, tags, locations and claims of rows, one query
// for each kind however many rows there are.
func (t *tx) readParts(ctx context.Context, rows []*row) error {
	if len(rows) == 0 {
		return nil
	}
	byPK := make(map[int64]*records.Image, len(rows))
	pks := make([]int64, len(rows))
	for i, r := range rows {
		byPK[r.pk], pks[i] = &r.img, r.pk
	}
	of, list := t.d.OneOf("image", pks)
	for _, part := range []struct {
		selected, order string // the first column is the image's pk
		take            func(*sql.Rows, map[int64]*records.Image) error
	}{
		{`image, name, value FROM properties`, ``, takeProperty},
		{`image, tag FROM tags`, ` ORDER BY image, tag`, takeTag},
		{`image, store, url, size, version, metadata FROM locations`, ` ORDER BY image, position`, takeLocation},
		{`image, store, claim FROM claims`, ` ORDER BY image, position`, takeClaim},
	} {
		query := `SELECT ` + part.selected + ` WHERE ` + of + part.order
		if err := t.rows(ctx, query, []any{list}, func(rows *sql.Rows) error { return part.take(rows, byPK) }); err != nil {
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
