package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"glanced/catalog/fields"
	"glanced/catalog/records"
)

// compareOps are SQL's words for those of records.Compare.
var compareOps = map[string]string{"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

// conditions collects an AND of terms with their parameters.
type conditions struct {
	d     Dialect
	terms []string
	args  []any
}

func (c *conditions) add(term string, args ...any) {
	c.terms = append(c.terms, term)
	c.args = append(c.args, args...)
}

// oneOf adds "column is one of values", which are one parameter however many.
func oneOf[T ~string](c *conditions, column string, values []T) {
	switch len(values) {
	case 0:
	case 1:
		c.add(column+" = ?", string(values[0]))
	default:
		list := make([]string, len(values))
		for i, v := range values {
			list[i] = string(v)
		}
		c.add(c.d.OneOf(column, list))
	}
}

// listSQL is the statement that lists q, and its parameters.
func (t *tx) listSQL(ctx context.Context, q records.Query) (string, []any, error) {
	c := conditions{d: t.d}
	if err := filter(&c, q); err != nil {
		return "", nil, err
	}
	keys, err := order(q.Sort)
	if err != nil {
		return "", nil, err
	}
	if q.Marker != "" {
		if err := t.after(ctx, &c, keys, q.Scope, q.Marker); err != nil {
			return "", nil, err
		}
	}
	text := `SELECT pk, ` + columns + ` FROM images`
	if len(c.terms) > 0 {
		text += ` WHERE ` + strings.Join(c.terms, " AND ")
	}
	var by []string
	for _, k := range keys {
		by = append(by, k.column+k.direction())
	}
	text += ` ORDER BY ` + strings.Join(by, ", ")
	if q.Limit > 0 {
		text += ` LIMIT ?`
		c.args = append(c.args, int64(q.Limit)+1) // one more tells whether there are more
	}
	return text, c.args, nil
}

// sortKey is one key of an order.
type sortKey struct {
	column         string
	nullable, desc bool
}

// direction puts NULL before everything, so last when descending; where there is
// none, nothing is said of it, so that any index in this order will do.
func (k sortKey) direction() string {
	switch {
	case k.desc && k.nullable:
		return " DESC NULLS LAST"
	case k.desc:
		return " DESC"
	case k.nullable:
		return " ASC NULLS FIRST"
	}
	return " ASC"
}

// filter adds what q asks for: the viewer's scope first, then field by field.
func filter(c *conditions, q records.Query) error {
	within(c, q.Scope)
	if q.Among != nil {
		within(c, *q.Among)
	}
	for _, f := range fields.All() {
		if err := filterBy(c, f, f.Condition(&q)); err != nil {
			return err
		}
	}
	if q.Unhashed {
		c.add("hash_value IS NULL")
	}
	for _, name := range slices.Sorted(maps.Keys(q.Properties)) {
		term, args := "value = ?", []any{q.Properties[name]}
		if c.d.Same != nil {
			term, args = c.d.Same("value", q.Properties[name])
		}
		c.add("pk IN (SELECT image FROM properties WHERE name = ? AND "+term+")", append([]any{name}, args...)...)
	}
	if q.AfterID != "" {
		c.add("id > ?", q.AfterID)
	}
	if q.Parent != "" {
		c.add("parent_id = ?", q.Parent)
	}
	if q.Holding {
		c.add("pk IN (SELECT image FROM locations UNION ALL SELECT image FROM claims)")
	}
	return nil
}

// filterBy adds what condition, of a query, asks of f.
func filterBy(c *conditions, f *fields.Field, condition any) error {
	switch want := condition.(type) {
	case *[]records.Status:
		if len(*want) == 0 {
			c.add("status NOT IN ('deleted', 'pending_delete')")
		}
		oneOf(c, f.Storage.Columns[0], *want)
	case *[]string:
		if f.Filter != fields.AllOf {
			oneOf(c, f.Storage.Columns[0], *want)
			break
		}
		for _, tag := range *want {
			c.add("pk IN (SELECT image FROM tags WHERE tag = ?)", tag)
		}
	case **bool:
		if *want != nil {
			c.add(f.Storage.Columns[0]+" = ?", **want)
		}
	case *records.Range:
		for op, n := range [...]*int64{want.Is, want.Min, want.Max} {
			if n != nil {
				c.add(f.Storage.Columns[0]+[...]string{" = ?", " >= ?", " <= ?"}[op], *n)
			}
		}
	case *[]records.Compare:
		return compare(c, f.Storage.Columns[0], *want)
	case nil, **records.Scope: // Among: see filter
	default:
		return fmt.Errorf("field %s is filtered by a %T, for which there is no statement", f.Name, condition)
	}
	return nil
}

// within adds that the image is in a scope: records.Scope.Contains, in SQL.
func within(c *conditions, s records.Scope) {
	if s.All {
		return
	}
	var terms []string
	var args []any
	for column, values := range [...][]string{s.Owners, s.Visibility} {
		for _, v := range values {
			terms = append(terms, [...]string{"owner", "visibility"}[column]+" = ?")
			args = append(args, v)
		}
	}
	if len(terms) == 0 {
		terms = []string{"1 = 0"}
	}
	c.add("("+strings.Join(terms, " OR ")+")", args...)
}

func compare(c *conditions, column string, all []records.Compare) error {
	for _, t := range all {
		op, ok := compareOps[t.Op]
		if !ok {
			return fmt.Errorf("no comparison %q; use eq, neq, gt, gte, lt or lte", t.Op)
		}
		c.add(column+" "+op+" ?", t.Time.UnixMicro())
	}
	return nil
}

// order checks the sort keys, and adds created_at and id, newest first, where
// they are missing, so that the order is total.
func order(keys []records.SortKey) (all []sortKey, err error) {
	keys = slices.Clone(keys)
	for i, k := range keys {
		if !slices.Contains(fields.SortKeys(), k.Key) {
			return nil, fmt.Errorf("images cannot be sorted by %q", k.Key)
		}
		if slices.ContainsFunc(keys[:i], func(o records.SortKey) bool { return o.Key == k.Key }) {
			return nil, fmt.Errorf("sort key %q is given twice", k.Key)
		}
	}
	for _, last := range []string{"created_at", "id"} {
		if slices.ContainsFunc(keys, func(k records.SortKey) bool { return k.Key == "id" }) {
			break // ids are unique: nothing after it counts
		}
		if !slices.ContainsFunc(keys, func(k records.SortKey) bool { return k.Key == last }) {
			keys = append(keys, records.SortKey{Key: last, Desc: true})
		}
	}
	for _, k := range keys {
		f, _ := fields.Find(k.Key)
		all = append(all, sortKey{column: f.Storage.Columns[0], nullable: f.Storage.Null, desc: k.Desc})
	}
	return all, nil
}

// after adds "comes after the marker in the order of keys": for some key it
// differs from the marker on the far side, and in all keys before that it is the
// same. A marker that is not visible is none: where it stands among the images that
// a viewer can make would tell its name and its size.
func (t *tx) after(ctx context.Context, c *conditions, keys []sortKey, visible records.Scope, marker string) error {
	values, pointers := make([]any, len(keys)), make([]any, len(keys))
	var names []string
	for i, k := range keys {
		names, pointers[i] = append(names, k.column), &values[i]
	}
	which := conditions{d: t.d}
	which.add("id = ? AND status NOT IN ('deleted', 'pending_delete')", marker)
	within(&which, visible)
	err := t.row(ctx, `SELECT `+strings.Join(names, ", ")+` FROM images WHERE `+strings.Join(which.terms, " AND "), which.args, pointers...)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %q", records.ErrMarker, marker)
	}
	if err != nil {
		return err
	}
	var far []string
	var args []any
	for i, k := range keys {
		if values[i] == nil && k.desc {
			continue // nothing is below NULL
		}
		var term []string
		for j := range i {
			if values[j] == nil {
				term = append(term, keys[j].column+" IS NULL")
			} else {
				term, args = append(term, keys[j].column+" = ?"), append(args, values[j])
			}
		}
		switch {
		case values[i] == nil:
			term = append(term, k.column+" IS NOT NULL")
		case !k.desc:
			term, args = append(term, k.column+" > ?"), append(args, values[i])
		case k.nullable:
			term, args = append(term, "("+k.column+" < ? OR "+k.column+" IS NULL)"), append(args, values[i])
		default:
			term, args = append(term, k.column+" < ?"), append(args, values[i])
		}
		far = append(far, "("+strings.Join(term, " AND ")+")")
	}
	// Implied by the rest, but an index can be entered at it.
	if first := keys[0]; !first.desc && values[0] != nil {
		c.add(first.column+" >= ?", values[0])
	} else if first.desc && !first.nullable {
		c.add(first.column+" <= ?", values[0])
	}
	if len(far) == 0 {
		c.add("1 = 0")
	} else {
		c.add("("+strings.Join(far, " OR ")+")", args...)
	}
	return nil
}

// Counts implements records.Tx.
func (t *tx) Counts(ctx context.Context) (map[records.Status]int64, error) {
	return counted[records.Status](ctx, t, `SELECT status, count(*) FROM images WHERE status <> 'deleted' GROUP BY status`)
}

// Stores implements records.Tx.
func (t *tx) Stores(ctx context.Context) (map[string]int64, error) {
	return counted[string](ctx, t, `SELECT store, count(*) FROM locations GROUP BY store`)
}

// counted is the result of a query for words and their counts.
func counted[K ~string](ctx context.Context, t *tx, query string) (map[K]int64, error) {
	counts := map[K]int64{}
	err := t.rows(ctx, query, nil, func(rows *sql.Rows) error {
		var word K
		var n int64
		err := rows.Scan(&word, &n)
		counts[word] = n
		return err
	})
	return counts, err
}

// Explain is what the database answers to the statement that lists q, after explain
// ("EXPLAIN …"): a test of a dialect's indexes. The last column of each row is a line.
func (db *DB) Explain(ctx context.Context, explain string, q records.Query) (string, error) {
	var plan []string
	err := db.d.transact(ctx, db.read, db.d.Views, "explain", func(t *tx) error {
		text, args, err := t.listSQL(ctx, q)
		if err != nil {
			return err
		}
		return t.rows(ctx, explain+text, args, func(rows *sql.Rows) error {
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(string)
			}
			err = rows.Scan(values...)
			plan = append(plan, *values[len(values)-1].(*string))
			return err
		})
	})
	return strings.Join(plan, "\n"), err
}
