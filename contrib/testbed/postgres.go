package testbed

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PostgresDatabase is an empty database of a PostgreSQL server that runs.
type PostgresDatabase struct {
	URL      string // postgres://glance@127.0.0.1:port/name
	Password string
}

// postgresPassword has what a URL or a password file would trip over.
const postgresPassword = "p@ss:w/ord\\%41"

// Postgres is a database of its own, which goes with the test, on a server that all tests
// of a program share: see Main.
func Postgres(t testing.TB) PostgresDatabase {
	t.Helper()
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) == 0 {
		UnableFor(t, "postgres", "postgres is missing: install postgresql")
	}
	port := share(t, "postgres", 1, "", func(dir string, ports []string) *exec.Cmd {
		cmd := exec.Command("bash", script("postgres.sh"), "run", dir, ports[0])
		cmd.Env = append(os.Environ(), "PG_PASSWORD="+postgresPassword)
		return cmd
	}).ports[0]
	at := func(name string) PostgresDatabase {
		u := url.URL{Scheme: "postgres", User: url.User("glance"), Host: "127.0.0.1:" + port, Path: "/" + name}
		return PostgresDatabase{u.String(), postgresPassword}
	}
	name := "testbed_" + strings.ToLower(rand.Text()[:12])
	at("postgres").Exec(t, `CREATE DATABASE `+name)
	t.Cleanup(func() { at("postgres").Exec(t, `DROP DATABASE `+name+` WITH (FORCE)`) })
	return at(name)
}

// Exec runs one statement as the superuser.
func (d PostgresDatabase) Exec(t testing.TB, sql string) {
	t.Helper()
	ctx := context.Background() // also when the test is over
	c := d.connect(ctx, t)
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Number is the one number that a query gives.
func (d PostgresDatabase) Number(t testing.TB, sql string) (n int64) {
	t.Helper()
	ctx := context.Background()
	c := d.connect(ctx, t)
	defer c.Close(ctx)
	if err := c.QueryRow(ctx, sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// Disconnect ends every connection to the database, as a server does that is restarted.
func (d PostgresDatabase) Disconnect(t testing.TB) {
	t.Helper()
	d.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

// connect waits while the server starts.
func (d PostgresDatabase) connect(ctx context.Context, t testing.TB) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = d.Password
	var c *pgx.Conn
	why := await(func() bool {
		c, err = pgx.ConnectConfig(ctx, cfg)
		return err == nil
	}, nil)
	if why != "" {
		t.Fatalf("%s: %v", why, err)
	}
	return c
}
