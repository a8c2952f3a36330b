package postgres

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"glanced/catalog/records"
	"glanced/catalog/rules"
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

// BenchmarkCreate has 8 at once create, in projects of their own: each waits for the
// others' commits, as they log a change. BenchmarkSetQuota is the same without one.
func BenchmarkCreate(b *testing.B) {
	at8(b, func(s *rules.Records, project string) error {
		_, err := s.Create(b.Context(), records.Image{ID: uuid.NewString(), Status: "queued", Visibility: "private", Owner: project})
		return err
	})
}

func BenchmarkSetQuota(b *testing.B) {
	at8(b, func(s *rules.Records, project string) error {
		return s.SetQuota(b.Context(), project, &records.Quota{ImageCountTotal: 1})
	})
}

// at8 has 8 do something at once, on a server whose commits are durable.
func at8(b *testing.B, do func(s *rules.Records, project string) error) {
	s, d := openRecords(b)
	d.Exec(b, `ALTER SYSTEM SET fsync = on`)
	d.Exec(b, `SELECT pg_reload_conf()`)
	defer func() {
		d.Exec(b, `ALTER SYSTEM RESET fsync`)
		d.Exec(b, `SELECT pg_reload_conf()`)
	}()
	d.Exec(b, `CHECKPOINT`)
	var project atomic.Int64
	b.SetParallelism(8 / runtime.GOMAXPROCS(0))
	for range 8 { // the connections are made, and the server's caches filled
		if err := do(s, "warm"); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		project := fmt.Sprint("project ", project.Add(1))
		for pb.Next() {
			if err := do(s, project); err != nil {
				b.Error(err)
			}
		}
	})
}
