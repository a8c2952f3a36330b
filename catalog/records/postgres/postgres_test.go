package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/catalog/records"
	"glanced/catalog/records/recordstest"
	"glanced/catalog/records/sqltx"
	"glanced/catalog/rules"
	"glanced/contrib/testbed"
)

func TestMain(m *testing.M) {
	recordstest.Worker(func(where string) (records.DB, error) {
		var o Options
		if err := json.Unmarshal([]byte(where), &o); err != nil {
			return nil, err
		}
		return Open(context.Background(), o)
	})
	os.Exit(testbed.Main(m))
}

func openDB(t testing.TB, d testbed.PostgresDatabase) records.DB {
	t.Helper()
	db, err := Open(t.Context(), Options{URL: d.URL, Password: d.Password})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// openRecords are the records of a database of their own, closed with the test.
func openRecords(t testing.TB) (*rules.Records, testbed.PostgresDatabase) {
	t.Helper()
	d := testbed.Postgres(t)
	db := openDB(t, d)
	t.Cleanup(func() { db.Close() })
	return rules.New(db, rules.Options{}), d
}

func TestContract(t *testing.T) {
	recordstest.Suite{New: func(t *testing.T) (records.DB, string) {
		d := testbed.Postgres(t)
		where, err := json.Marshal(Options{URL: d.URL, Password: d.Password})
		if err != nil {
			t.Fatal(err)
		}
		return openDB(t, d), string(where)
	}}.Run(t)
}

func TestSeveralDaemonsMayStartAtOnce(t *testing.T) {
	d := testbed.Postgres(t)
	failed := make(chan error)
	for range 4 {
		go func() {
			db, err := Open(context.Background(), Options{URL: d.URL, Password: d.Password})
			if err == nil {
				err = db.Close()
			}
			failed <- err
		}()
	}
	for range 4 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

func TestANewerDatabaseIsRefused(t *testing.T) {
	_, d := openRecords(t)
	d.Exec(t, `INSERT INTO schema_version VALUES (9999, 'future', 0)`)
	if _, err := Open(t.Context(), Options{URL: d.URL, Password: d.Password}); !errors.Is(err, sqltx.ErrNewer) {
		t.Error(err)
	}
}

// A change that is not committed yet has its number, or gets a higher one than all that
// anybody has seen.
func TestAChangeWaitsForTheOneBeforeIt(t *testing.T) {
	d := testbed.Postgres(t)
	db := openDB(t, d)
	defer db.Close()
	second := make(chan error, 1)
	var first, seen records.Seq
	err := db.Change(t.Context(), "first", func(tx records.Tx) (err error) {
		if first, err = tx.Append(t.Context(), records.Change{Kind: records.Created, ID: "a", Status: "queued"}); err != nil {
			return err
		}
		go func() {
			second <- db.Change(t.Context(), "second", func(tx records.Tx) error {
				_, err := tx.Append(t.Context(), records.Change{Kind: records.Created, ID: "b", Status: "queued"})
				return err
			})
		}()
		for d.Number(t, `SELECT count(*) FROM pg_locks WHERE NOT granted`) == 0 {
			select {
			case err := <-second:
				second <- err
				t.Error("the second was committed before the first")
				return nil
			default:
			}
		}
		seen = records.Seq(d.Number(t, `SELECT coalesce(max(seq), 0) FROM changes`))
		return nil
	})
	if err := errors.Join(err, <-second); err != nil || seen >= first {
		t.Errorf("%v; %d was seen before change %d was there", err, seen, first)
	}
}

// A daemon that is stopped in a transaction has the log's last row.
func TestADaemonThatIsStoppedHoldsNobodyUp(t *testing.T) {
	d := testbed.Postgres(t)
	a, b := openDB(t, d), openDB(t, d)
	defer a.Close()
	defer b.Close()
	other := rules.New(b, rules.Options{})
	runs := 0
	err := a.Change(t.Context(), "stop", func(tx records.Tx) error {
		if runs++; runs > 1 {
			return nil
		}
		if _, err := tx.Append(t.Context(), records.Change{Kind: records.Created, ID: "a", Status: "queued"}); err != nil {
			return err
		}
		_, err := other.Create(t.Context(), records.Image{ID: "i", Status: "queued", Visibility: "private"})
		return err
	})
	if err != nil || runs != 2 {
		t.Errorf("%v after %d runs", err, runs)
	}
	if all, err := other.Changes(t.Context(), 0, 10); err != nil || len(all) != 1 || all[0].ID != "i" {
		t.Errorf("the log is %v, %v", all, err)
	}
}

func TestALostConnectionIsMadeAgain(t *testing.T) {
	s, d := openRecords(t)
	img, err := s.Create(t.Context(), records.Image{ID: "i", Status: "queued", Visibility: "private"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.Disconnect(t)
		if _, err := s.Get(t.Context(), img.ID); err != nil {
			t.Error(err)
		}
		d.Disconnect(t)
		if _, err := s.Update(t.Context(), img.ID, func(i *records.Image) error { i.MinRAM++; return nil }); err != nil {
			t.Error(err)
		}
	}
	if img, err = s.Get(t.Context(), img.ID); err != nil || img.MinRAM != 3 {
		t.Errorf("%d of 3 updates, %v", img.MinRAM, err)
	}
}

func TestALostTransactionIsRunAgain(t *testing.T) {
	s, d := openRecords(t)
	if _, err := s.Create(t.Context(), records.Image{ID: "i", Status: "queued", Visibility: "private"}); err != nil {
		t.Fatal(err)
	}
	runs := 0
	img, err := s.Update(t.Context(), "i", func(i *records.Image) error {
		if runs++; runs == 1 {
			d.Disconnect(t)
		}
		i.MinRAM++
		return nil
	})
	if err != nil || runs != 2 || img.MinRAM != 1 {
		t.Errorf("%v after %d runs, %d", err, runs, img.MinRAM)
	}
}

func TestWhoWaitsTooLongIsToldThatItIsBusy(t *testing.T) {
	for _, c := range []struct {
		code string
		want error
	}{{"55P03", records.ErrBusy}, {"40001", records.ErrBusy}, {"53300", records.ErrBusy}, {"53100", records.ErrFull}, {"57P01", records.ErrUnreachable}, {"08006", records.ErrUnreachable}} {
		if err := kind(pgError(c.code)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.code, err)
		}
	}
}

func TestPasswordsAreNotSaid(t *testing.T) {
	for _, url := range []string{"postgres://glance:secret@db/glance", "postgres://glance@db/glance?password=secret",
		"postgres://glance:secret@db:port/", "postgres://glance:secret%@db/x", "mysql://glance:secret@db/x", "postgres://"} {
		err := Check(url)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
	d := testbed.Postgres(t)
	_, err := Open(t.Context(), Options{URL: d.URL, Password: "secret wrong"})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	// As libpq finds it.
	at, _ := strings.CutPrefix(d.URL, "postgres://glance@127.0.0.1:")
	port, _, _ := strings.Cut(at, "/")
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte("127.0.0.1:"+port+":*:glance:"+strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(d.Password)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSFILE", file)
	db, err := Open(t.Context(), Options{URL: d.URL})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
}

func TestAServerElsewhereShowsWhoItIs(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://glance@db.example.org/glance": true, "postgres://glance@db.example.org/glance?sslmode=disable": false,
		"postgres://glance@127.0.0.1/glance": false, "postgres:///glance?host=/run/postgresql": false,
		"postgres://glance@10.0.0.1/glance": true,
	} {
		cfg, err := configure(Options{URL: url})
		if err != nil || (cfg.TLSConfig != nil && !cfg.TLSConfig.InsecureSkipVerify) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What a project sees, and what of it is listed by default.
var (
	seen   = records.Scope{Owners: []string{"project 1"}, Visibility: []string{"public", "community"}}
	listed = records.Scope{Owners: []string{"project 1"}, Visibility: []string{"public", "shared", "private"}}
)

// TestPagesAreIndexWalks asks PostgreSQL how it would list: in an index's order, and
// without sorting.
func TestPagesAreIndexWalks(t *testing.T) {
	d := testbed.Postgres(t)
	db := openDB(t, d).(*sqltx.DB)
	defer db.Close()
	fillUp(t, d, 20000)
	for name, q := range map[string]records.Query{
		"by default":    {Scope: seen, Among: &listed},
		"administrator": {Scope: records.Everything},
		"next page":     {Scope: seen, Among: &listed, Marker: "00002500-0000-4000-8000-000000000000"},
		"by name":       {Scope: records.Everything, Sort: []records.SortKey{{Key: "name"}, {Key: "created_at"}, {Key: "id"}}},
		"of an owner":   {Scope: records.Everything, Owner: []string{"project 1"}},
	} {
		q.Limit = 25
		plan, err := db.Explain(t.Context(), "EXPLAIN ", q)
		if err != nil || !strings.Contains(plan, "Index") || strings.Contains(plan, "Sort") && !strings.Contains(plan, "Incremental Sort") {
			t.Errorf("%s: %v\n%s", name, err, plan)
		}
	}
	rare := records.Query{Scope: records.Everything, Properties: map[string]string{"os": "rare"}}
	if plan, err := db.Explain(t.Context(), "EXPLAIN ", rare); err != nil || !strings.Contains(plan, "properties_value") {
		t.Errorf("by property: %v\n%s", err, plan)
	}
}
