package postgres

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"glanced/catalog/records"
	"glanced/contrib/testbed"
)

func pgError(code string) error { return fmt.Errorf("test: %w", &pgconn.PgError{Code: code}) }

// fillUp adds n images by SQL.
func fillUp(t testing.TB, d testbed.PostgresDatabase, n int) {
	t.Helper()
	d.Exec(t, fmt.Sprintf(`INSERT INTO images (id, name, status, visibility, owner, protected, hidden, min_disk, min_ram, size, disk_error, created_at, updated_at, node, reserved, snapshots)
		SELECT lpad(n::text, 8, '0') || '-0000-4000-8000-000000000000', 'image ' || (n %% 1000), 'active',
			CASE n %% 5 WHEN 0 THEN 'public' WHEN 1 THEN 'community' ELSE 'private' END,
			'project ' || (n %% 100), false, false, 0, 0, n, '', 1000000::bigint * n, 1000000::bigint * n, '', 0, '[]' FROM generate_series(1, %d) n`, n))
	d.Exec(t, `INSERT INTO properties SELECT pk, 'os', CASE pk % 1000 WHEN 0 THEN 'rare' ELSE 'common' END FROM images`)
	d.Exec(t, `INSERT INTO tags SELECT pk, 'tag ' || (pk % 10) FROM images`)
	d.Exec(t, `ANALYZE`)
}

func BenchmarkListAllOf1000(b *testing.B) {
	s, d := openRecords(b)
	fillUp(b, d, 1000)
	for b.Loop() {
		if all, err := s.List(b.Context(), records.Query{Scope: records.Everything}); err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s, d := openRecords(b)
	fillUp(b, d, 1000)
	for b.Loop() {
		if _, err := s.Get(b.Context(), "00000500-0000-4000-8000-000000000000"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate has 8 at once create, in projects of their own. Without a log of
// changes they would not wait for each other; the counter's row makes them.
func BenchmarkCreate(b *testing.B) {
	s, d := openRecords(b)
	d.Exec(b, `ALTER SYSTEM SET fsync = on`)
	d.Exec(b, `SELECT pg_reload_conf()`)
	defer func() { d.Exec(b, `ALTER SYSTEM RESET fsync`); d.Exec(b, `SELECT pg_reload_conf()`) }()
	var worker atomic.Int64
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		owner := fmt.Sprint("project ", worker.Add(1))
		for pb.Next() {
			if _, err := s.Create(b.Context(), records.Image{ID: uuid.NewString(), Status: "queued", Visibility: "private", Owner: owner}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
