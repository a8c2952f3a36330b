package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/uuid"

	"glanced/catalog/fields"
	"glanced/catalog/records"
	"glanced/catalog/records/recordstest"
	"glanced/catalog/records/sqltx"
	"glanced/catalog/rules"
)

func TestMain(m *testing.M) {
	recordstest.Worker(func(path string) (records.DB, error) { return Open(context.Background(), path) })
	os.Exit(m.Run())
}

func openDB(t testing.TB, path string) records.DB {
	t.Helper()
	db, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// openRecords are the records of a database that is closed with the test.
func openRecords(t testing.TB, path string) *rules.Records {
	t.Helper()
	db := openDB(t, path)
	t.Cleanup(func() { db.Close() })
	return rules.New(db, rules.Options{})
}

// openConnections are those of a database, for what is set for each of them.
func openConnections(t testing.TB, path string) (write, read *sql.DB) {
	t.Helper()
	write, read, err := open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { write.Close(); read.Close() })
	return write, read
}

// openRaw is the same database for SQL of the test's own, closed with the test.
func openRaw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := connect(path, "immediate", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestContract(t *testing.T) {
	recordstest.Suite{New: func(t *testing.T) (records.DB, string) {
		path := filepath.Join(t.TempDir(), "odd name %41?#ảnh.db")
		return openDB(t, path), path
	}}.Run(t)
}

func TestContractWhereEachTransactionRunsTwice(t *testing.T) {
	recordstest.Suite{New: func(t *testing.T) (records.DB, string) {
		path := filepath.Join(t.TempDir(), "c.db")
		return recordstest.Twice{DB: openDB(t, path)}, path
	}}.Run(t)
}

func TestTheFileIsWhereItWasAskedFor(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a%41 ?#b.db")
	openRecords(t, path)
	found, err := filepath.Glob(filepath.Join(dir, "a%41 [?]#b.db"))
	if err != nil || len(found) != 1 {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestTheDatabaseIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := openRecords(t, path)
	if _, err := s.Create(t.Context(), records.Image{ID: "i", Status: "queued", Visibility: "private"}); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(path + suffix); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", suffix, info.Mode(), err)
		}
	}
}

// A column that no field has would keep what nobody reads or writes.
func TestTheColumnsAreThoseOfTheTableOfFields(t *testing.T) {
	write, _ := openConnections(t, filepath.Join(t.TempDir(), "c.db"))
	rows, err := write.Query(`SELECT name FROM pragma_table_info('images') WHERE name <> 'pk' ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got, want []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
	}
	for _, f := range fields.Stored() {
		want = append(want, f.Storage.Columns...)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) || rows.Err() != nil {
		t.Errorf("the columns are %v, want %v, %v", got, want, rows.Err())
	}
}

func TestAFullDatabaseIsToldAndChangesNothing(t *testing.T) {
	write, read := openConnections(t, filepath.Join(t.TempDir(), "c.db"))
	s := rules.New(sqltx.New(dialect, write, read), rules.Options{})
	if _, err := write.Exec("PRAGMA max_page_count = 40"); err != nil { // SQLite's own limit fails as a full disk does
		t.Fatal(err)
	}
	img := records.Image{Status: "queued", Visibility: "private", Properties: map[string]string{"long": strings.Repeat("x", 30_000)}}
	var err error
	for i := 0; err == nil; i++ {
		img.ID = fmt.Sprint("i", i)
		_, err = s.Create(t.Context(), img)
	}
	if !errors.Is(err, records.ErrFull) {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), img.ID); !errors.Is(err, records.ErrNotFound) {
		t.Error(err)
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	db := openDB(t, path)
	img, err := rules.New(db, rules.Options{}).Create(t.Context(), records.Image{ID: "i", Status: "queued", Visibility: "private"})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s := openRecords(t, path)
	if got, err := s.Get(t.Context(), img.ID); err != nil || !got.CreatedAt.Equal(img.CreatedAt) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTheDatabaseIsDurableAndConcurrent(t *testing.T) {
	write, read := openConnections(t, filepath.Join(t.TempDir(), "c.db"))
	for _, db := range []*sql.DB{write, read} {
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": fmt.Sprint(busyTimeout)} {
			var got string
			if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %q, %v; want %s", pragma, got, err, want)
			}
		}
	}
}

func TestTwoProcessesWriteOneDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	a, b := openRecords(t, path), openRecords(t, path)
	if _, err := a.Create(t.Context(), records.Image{ID: "i", Status: "queued", Visibility: "private"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	for _, s := range []*rules.Records{a, b} {
		go func() {
			var err error
			for range 50 {
				_, e := s.Update(context.Background(), "i", func(i *records.Image) error { i.MinRAM++; return nil })
				err = errors.Join(err, e)
			}
			done <- err
		}()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Get(t.Context(), "i"); err != nil || got.MinRAM != 100 {
		t.Errorf("%d of 100 increments, %v", got.MinRAM, err)
	}
}

func TestANewerDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	openRecords(t, path)
	if _, err := openRaw(t, path).Exec(`INSERT INTO schema_version VALUES (9999, 'future', 0)`); err != nil {
		t.Fatal(err)
	}
	// Its version counts, not how many steps there were.
	if _, err := Open(t.Context(), path); !errors.Is(err, sqltx.ErrNewer) {
		t.Errorf("error %v, want sqltx.ErrNewer", err)
	}
}

// migrateTo brings an empty database to an old version.
func migrateTo(t *testing.T, db *sql.DB, version int) {
	t.Helper()
	old := fstest.MapFS{}
	for _, name := range []string{"0001_images.sql", "0002_parents.sql", "0003_claims.sql"}[:version] {
		text, err := migrations.ReadFile("migrations/" + name)
		if err != nil {
			t.Fatal(err)
		}
		old["migrations/"+name] = &fstest.MapFile{Data: text}
	}
	if err := sqltx.Migrate(t.Context(), dialect, db, old); err != nil {
		t.Fatal(err)
	}
}

// The sums of a project were kept by triggers until version 4.
func TestTheSumsOfAnOldDatabaseGoOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	db := openRaw(t, path)
	migrateTo(t, db, 3)
	_, err := db.Exec(`INSERT INTO images (id, status, visibility, owner, protected, hidden, min_disk, min_ram, size, disk_error, created_at, updated_at, node, reserved)
		VALUES ('i', 'active', 'private', 'p', 0, 0, 0, 0, 100, '', 1, 1, '', 5)`)
	if err != nil {
		t.Fatal(err)
	}
	s := openRecords(t, path)
	if _, err := s.Create(t.Context(), records.Image{ID: "j", Status: "queued", Visibility: "private", Owner: "p"}); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context(), "p"); err != nil || u != (records.Usage{ImageCount: 2, ImageBytes: 105}) {
		t.Errorf("usage %+v, %v", u, err)
	}
	if _, err := s.Update(t.Context(), "i", func(i *records.Image) error { i.Status = records.Deleted; return nil }); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context(), "p"); err != nil || u != (records.Usage{ImageCount: 1}) {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// A plain disk image could be in container ova or compressed, and was served.
func TestWhatTheFirstVersionTookForBareHasNoDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	db := openRaw(t, path)
	migrateTo(t, db, 1)
	ids := map[string]string{}
	for _, container := range []string{"ova", "compressed", "bare", "docker"} {
		ids[container] = uuid.NewString()
		_, err := db.Exec(`INSERT INTO images (id, status, container_format, visibility, owner, protected, hidden, min_disk, min_ram, virtual_size, disk_error, created_at, updated_at, node, reserved)
			VALUES (?, 'active', ?, 'private', 'p', 0, 0, 0, 0, 1024, '', 1, 1, '', 0)`, ids[container], container)
		if err != nil {
			t.Fatal(err)
		}
	}
	s := openRecords(t, path)
	for container, id := range ids {
		img, err := s.Get(t.Context(), id)
		opened := container == "ova" || container == "compressed"
		if err != nil || (img.DiskError != "") != opened || (img.VirtualSize == nil) != opened {
			t.Errorf("%s: %+v, %v", container, img, err)
		}
	}
}

// Until version 3, locations had neither size nor version, and a pending one was
// what an upload might have left.
func TestOldLocationsAreUnstampedAndPendingOnesBecomeClaims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	db := openRaw(t, path)
	migrateTo(t, db, 2)
	_, err := db.Exec(`
		INSERT INTO images (pk, id, status, visibility, owner, protected, hidden, min_disk, min_ram, disk_error, created_at, updated_at, node, reserved)
		VALUES (7, 'i', 'saving', 'private', 'p', 0, 0, 0, 0, '', 1, 1, 'n', 5);
		INSERT INTO locations VALUES (7, 0, 0, 's', 'file:///a/i', '{"k":"v"}'), (7, 0, 1, 't', 'file:///b/i', '{}'),
			(7, 1, 0, 't', 'file:///c/i', '{}'), (7, 1, 1, 's', 'file:///d/i', '{}')`)
	if err != nil {
		t.Fatal(err)
	}
	s := openRecords(t, path)
	img, err := s.Get(t.Context(), "i")
	if err != nil {
		t.Fatal(err)
	}
	wantLocations := []records.Location{{Store: "s", URL: "file:///a/i", Size: -1, Metadata: map[string]string{"k": "v"}}, {Store: "t", URL: "file:///b/i", Size: -1}}
	if !reflect.DeepEqual(img.Locations, wantLocations) {
		t.Errorf("locations %+v, want %+v", img.Locations, wantLocations)
	}
	wantClaims := []records.Claim{{Store: "t", Claim: "file:///c/i"}, {Store: "s", Claim: "file:///d/i"}}
	if !slices.Equal(img.Claims, wantClaims) {
		t.Errorf("claims %+v, want %+v", img.Claims, wantClaims)
	}
	// Deleting the image's row still takes the rest along.
	if _, err := db.Exec(`DELETE FROM images`); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.QueryRow(`SELECT (SELECT count(*) FROM locations) + (SELECT count(*) FROM claims)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}

func TestACallerThatLeavesIsNoFailureOfTheDatabase(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	defer db.Close()
	for range 100 {
		ctx, leave := context.WithCancel(t.Context())
		err := db.View(ctx, "look", func(tx records.Tx) error {
			leave()
			for { // until database/sql has noticed
				if _, err := tx.LastSeq(context.WithoutCancel(ctx)); errors.Is(err, sql.ErrTxDone) {
					return err
				}
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

func TestAFailedMigrationLeavesTheVersionBefore(t *testing.T) {
	db := openRaw(t, filepath.Join(t.TempDir(), "c.db"))
	migrated := func(second string) error {
		return sqltx.Migrate(t.Context(), dialect, db, fstest.MapFS{
			"migrations/0001_good.sql": {Data: []byte(`CREATE TABLE a (x)`)}, "migrations/0002_next.sql": {Data: []byte(second)}})
	}
	if err := migrated(`CREATE TABLE b (x); INSERT INTO nowhere VALUES (1)`); err == nil {
		t.Fatal("the bad migration was applied")
	}
	var tables int
	if err := db.QueryRow(`SELECT count(*) FROM sqlite_master WHERE name IN ('a', 'b')`).Scan(&tables); err != nil || tables != 1 {
		t.Errorf("%d tables, %v; want a and not b", tables, err)
	}
	if err := migrated(`CREATE TABLE b (x)`); err != nil {
		t.Errorf("after the bad migration was mended: %v", err)
	}
}

func TestMigrationsAreNumberedWithoutGaps(t *testing.T) {
	db := openRaw(t, filepath.Join(t.TempDir(), "c.db"))
	if err := sqltx.Migrate(t.Context(), dialect, db, fstest.MapFS{"migrations/0001_a.sql": {}, "migrations/0003_b.sql": {}}); err == nil {
		t.Error("a gap was not noticed")
	}
}

// fillUp adds n images by SQL, as one by one would take minutes.
func fillUp(t testing.TB, db *sql.DB, n int) {
	t.Helper()
	_, err := db.Exec(`
		WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < ?)
		INSERT INTO images (id, name, status, visibility, owner, protected, hidden, min_disk, min_ram, size, disk_error, created_at, updated_at, node, reserved)
		SELECT printf('%08d-0000-4000-8000-000000000000', n), 'image ' || (n % 1000), 'active',
			CASE n % 5 WHEN 0 THEN 'public' WHEN 1 THEN 'community' ELSE 'private' END,
			'project ' || (n % 100), 0, 0, 0, 0, n, '', 1000000 * n, 1000000 * (n * 7919 % 100003), '', 0 FROM k`, n)
	if err == nil {
		_, err = db.Exec(`INSERT INTO properties SELECT pk, 'os', CASE pk % 1000 WHEN 0 THEN 'rare' ELSE 'common' END FROM images`)
	}
	if err == nil {
		_, err = db.Exec(`INSERT INTO usage SELECT owner, count(*), sum(size) FROM images GROUP BY owner`)
	}
	if err == nil {
		_, err = db.Exec(`INSERT INTO tags SELECT pk, 'tag ' || (pk % 10) FROM images`)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What a project sees, and what of it is listed by default.
var (
	seen   = records.Scope{Owners: []string{"project 1"}, Visibility: []string{"public", "community"}}
	listed = records.Scope{Owners: []string{"project 1"}, Visibility: []string{"public", "shared", "private"}}
)

// filledUp are the records of a database of n images.
func filledUp(t testing.TB, n int) *rules.Records {
	path := filepath.Join(t.TempDir(), "c.db")
	s := openRecords(t, path)
	fillUp(t, openRaw(t, path), n)
	return s
}

// TestPagesAreIndexWalks asks SQLite how it would list: in an index's order, and
// without sorting.
func TestPagesAreIndexWalks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	write, read := openConnections(t, path)
	fillUp(t, write, 5000)
	db := sqltx.New(dialect, write, read)
	hidden := false
	for name, q := range map[string]records.Query{
		"by default":    {Scope: seen, Among: &listed, Hidden: &hidden},
		"administrator": {Scope: records.Everything},
		"next page":     {Scope: seen, Among: &listed, Marker: "00002500-0000-4000-8000-000000000000"},
		"oldest first":  {Scope: seen, Among: &listed, Sort: []records.SortKey{{Key: "created_at"}, {Key: "id"}}},
		"by name":       {Scope: records.Everything, Sort: []records.SortKey{{Key: "name", Desc: true}}},
		"of an owner":   {Scope: records.Everything, Owner: []string{"project 1"}},
		"of a status":   {Scope: records.Everything, Status: []records.Status{records.Active}},
		"children":      {Scope: records.Everything, Parent: "p", AfterID: "i", Status: []records.Status{records.Active, records.Deactivated}, Sort: []records.SortKey{{Key: "id"}}},
	} {
		q.Limit = 25
		plan := explain(t, db, q)
		if !strings.Contains(plan, "INDEX") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s:\n%s", name, plan)
		}
	}
}

func explain(t testing.TB, db *sqltx.DB, q records.Query) string {
	t.Helper()
	plan, err := db.Explain(t.Context(), "EXPLAIN QUERY PLAN ", q)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func BenchmarkList25Of100k(b *testing.B) {
	s := filledUp(b, 100_000)
	for name, q := range map[string]records.Query{
		"first page":      {Scope: seen, Among: &listed},
		"middle page":     {Scope: seen, Among: &listed, Marker: "00050000-0000-4000-8000-000000000000"},
		"nothing to see":  {Scope: seen, Among: &records.Scope{Visibility: []string{"shared"}}},
		"rare property":   {Scope: seen, Among: &listed, Properties: map[string]string{"os": "rare"}},
		"common property": {Scope: seen, Among: &listed, Properties: map[string]string{"os": "common"}},
		"tag":             {Scope: seen, Among: &listed, Tags: []string{"tag 1"}},
	} {
		q.Limit = 25
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	s := openRecords(b, filepath.Join(b.TempDir(), "c.db"))
	for b.Loop() {
		if _, err := s.Create(b.Context(), records.Image{ID: uuid.NewString(), Status: "queued", Visibility: "private", Owner: "p"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := filledUp(b, 100_000)
	for b.Loop() {
		if _, err := s.Get(b.Context(), "00050000-0000-4000-8000-000000000000"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListAllOf1000(b *testing.B) {
	s := filledUp(b, 1000)
	for b.Loop() {
		if all, err := s.List(b.Context(), records.Query{Scope: records.Everything}); err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := filledUp(b, 1000)
	for b.Loop() {
		_, err := s.Update(b.Context(), "00000500-0000-4000-8000-000000000000", func(i *records.Image) error { i.MinRAM++; return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}
