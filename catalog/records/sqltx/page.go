package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"glanced/catalog/records"
)

// errEnough ends the reading of rows.
var errEnough = errors.New("enough")

// Page implements records.Tx. The images' own rows are cut while they are read; their
// parts are weighed in the database, before any of them is read.
func (t *tx) Page(ctx context.Context, q records.Query, maxBytes int64) (images []records.Image, more bool, err error) {
	text, args, err := t.listSQL(ctx, q)
	if err != nil {
		return nil, false, err
	}
	var found []*row
	var weight int64
	err = t.rows(ctx, text, args, func(rows *sql.Rows) error {
		if q.Limit > 0 && len(found) == q.Limit {
			return errEnough
		}
		r := new(row)
		if err := r.scan(rows.Scan); err != nil {
			return err
		}
		if weight += r.img.Bytes(); weight > maxBytes && len(found) > 0 {
			return errEnough
		}
		found = append(found, r)
		return nil
	})
	if more = errors.Is(err, errEnough); err != nil && !more {
		return nil, false, err
	}
	if !q.Brief {
		n, err := t.fitting(ctx, found, maxBytes)
		if err != nil {
			return nil, false, err
		}
		found, more = found[:n], more || n < len(found)
		if err := t.readParts(ctx, found); err != nil {
			return nil, false, err
		}
	}
	images = make([]records.Image, len(found))
	for i, r := range found {
		images[i] = r.img
	}
	return images, more, nil
}

// fitting is how many of rows, from the first on, take maxBytes with their properties
// and tags, and one at least.
func (t *tx) fitting(ctx context.Context, rows []*row, maxBytes int64) (int, error) {
	if maxBytes == math.MaxInt64 || len(rows) == 0 {
		return len(rows), nil
	}
	parts, err := t.weighParts(ctx, rows)
	if err != nil {
		return 0, err
	}
	var weight int64
	for i, r := range rows {
		if weight += r.img.Bytes() + parts[r.pk]; weight > maxBytes && i > 0 {
			return i, nil
		}
	}
	return len(rows), nil
}

// weighParts is what the properties and tags of rows take in memory, bytes, by pk. A
// database knows a text's length in bytes without reading the text.
func (t *tx) weighParts(ctx context.Context, rows []*row) (map[int64]int64, error) {
	weights := make(map[int64]int64, len(rows))
	pks := make([]int64, len(rows))
	for i, r := range rows {
		pks[i] = r.pk
	}
	of, list := t.d.OneOf("image", pks)
	for _, query := range []string{
		`SELECT image, count(*), sum(octet_length(name) + octet_length(value)) FROM properties WHERE ` + of + ` GROUP BY image`,
		`SELECT image, count(*), sum(octet_length(tag)) FROM tags WHERE ` + of + ` GROUP BY image`,
	} {
		err := t.rows(ctx, query, []any{list}, func(rows *sql.Rows) error {
			var pk, n, bytes int64
			if err := rows.Scan(&pk, &n, &bytes); err != nil {
				return err
			}
			weights[pk] += n*records.PartBytes + bytes
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return weights, nil
}
