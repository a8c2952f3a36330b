package sqltx

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"glanced/catalog/fields"
	"glanced/catalog/records"
)

// columns are those of table images that hold fields of records.Image, in the
// order of row.pointers.
var columns = strings.Join(columnNames(), ", ")

func columnNames() (names []string) {
	for _, f := range fields.Stored() {
		names = append(names, f.Storage.Columns...)
	}
	return names
}

// times are the fields that are times.
var times = slices.DeleteFunc(slices.Clone(fields.Stored()), func(f *fields.Field) bool { return f.Kind != fields.Time })

// timeOf is where f, one of times, is in img.
func timeOf(f *fields.Field, img *records.Image) *time.Time { return f.At(img).(*time.Time) }

// row is one row of images on its way in or out.
type row struct {
	pk           int64
	micros       []int64 // since 1970, of each of times
	parent, hash *string
	snapshots    string // JSON
	img          records.Image
}

// newRow is img on its way in.
func newRow(img records.Image) (row, error) {
	r := row{micros: make([]int64, len(times)), snapshots: "[]", img: img}
	for i, f := range times {
		r.micros[i] = timeOf(f, &img).UnixMicro()
	}
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

// pointers are where the columns come from, or go.
func (r *row) pointers() []any {
	all := make([]any, 0, 2*len(fields.Stored()))
	n := 0 // of times
	for _, f := range fields.Stored() {
		switch at := f.At(&r.img).(type) {
		case **records.Parent:
			all = append(all, &r.parent, &r.hash)
		case *[]records.Snapshot:
			all = append(all, &r.snapshots)
		default:
			if f.Kind == fields.Time {
				at = &r.micros[n]
				n++
			}
			all = append(all, at)
		}
	}
	return all
}

// scan fills r by read, which is given where the columns go, pk first.
func (r *row) scan(read func(to ...any) error) error {
	r.micros = make([]int64, len(times))
	if err := read(append([]any{&r.pk}, r.pointers()...)...); err != nil {
		return err
	}
	for i, f := range times {
		*timeOf(f, &r.img) = time.UnixMicro(r.micros[i]).UTC()
	}
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

// Image implements records.Tx.
func (t *tx) Image(ctx context.Context, id string) (records.Image, error) {
	r, err := t.image(ctx, id)
	return r.img, err
}

func (t *tx) image(ctx context.Context, id string) (row, error) {
	var r row
	err := r.scan(func(to ...any) error {
		return t.row(ctx, `SELECT pk, `+columns+` FROM images WHERE id = ?`+t.lock, []any{id}, to...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, records.ErrNotFound
	}
	if err != nil {
		return row{}, err
	}
	return r, t.readParts(ctx, []*row{&r})
}

// Child implements records.Tx.
func (t *tx) Child(ctx context.Context, id string) (child string, err error) {
	err = t.row(ctx, `SELECT id FROM images WHERE parent_id = ? AND status <> 'deleted' LIMIT 1`, []any{id}, &child)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return child, err
}

// Insert implements records.Tx.
func (t *tx) Insert(ctx context.Context, img records.Image) error {
	if t.d.Room != nil {
		if err := t.d.Room(); err != nil {
			return err
		}
	}
	r, err := newRow(img)
	if err != nil {
		return err
	}
	values := r.pointers()
	err = t.row(ctx, `INSERT INTO images (`+columns+`) VALUES (`+marks(len(values))+`) RETURNING pk`, values, &r.pk)
	if err != nil && t.d.Exists(err) {
		return records.ErrExists
	}
	if err != nil {
		return err
	}
	return t.insertParts(ctx, r.pk, img)
}

// Write implements records.Tx.
func (t *tx) Write(ctx context.Context, old, img records.Image) error {
	if t.d.Room != nil && grows(old, img) {
		if err := t.d.Room(); err != nil {
			return err
		}
	}
	r, err := newRow(img)
	if err != nil {
		return err
	}
	values := r.pointers()
	err = t.row(ctx, `UPDATE images SET (`+columns+`) = (`+marks(len(values))+`) WHERE id = ? RETURNING pk`, append(values, old.ID), &r.pk)
	if err != nil {
		return err
	}
	return t.replaceParts(ctx, r.pk, old, img)
}

// grows tells whether a change may need more room than there was. Deletions,
// uploads that end without an image, and withdrawals do not.
func grows(old, img records.Image) bool {
	begins := img.Status == records.Saving && old.Status != records.Saving
	ends := img.Status == records.Active && old.Status == records.Saving
	return img.Status != records.Deleted && (begins || ends || img.Reserved > old.Reserved || img.Bytes() > old.Bytes())
}

// marks is n parameters of a statement.
func marks(n int) string { return "?" + strings.Repeat(", ?", n-1) }
