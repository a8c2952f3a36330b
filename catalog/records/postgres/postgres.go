// Package postgres keeps the catalog's records in a PostgreSQL database, which several
// daemons may share.
//
// A transaction that changes reads what is committed, and locks the rows that it
// decides by; one that only reads sees one moment. The number of a change comes from a
// counter whose row stays locked until the transaction is over (see Dialect.Append):
// a sequence would give numbers out of order.
package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sys/unix"

	"glanced/catalog/records"
	"glanced/catalog/records/sqltx"
)

const (
	conns       = 16               // at most, of one daemon
	connectTime = 10 * time.Second // a connection may take
	silence     = 10 * time.Second // of the server's kernel, after which a connection is given up
	lockTime    = "10s"            // a transaction waits for another one's row, before it fails with records.ErrBusy
	idleTime    = "5s"             // one may do nothing before the server ends it: a daemon that is stopped holds nobody up
	patience    = 10 * time.Second // a transaction is tried again so long while the server cannot be reached
)

//go:embed migrations/*.sql
var migrations embed.FS

var dialect = sqltx.Dialect{
	Bind:  numbered,
	OneOf: func(column string, list any) (string, any) { return column + " = ANY(?)", list },
	Same: func(column, value string) (string, []any) {
		return "(md5(" + column + ") = md5(?) AND " + column + " = ?)", []any{value, value} // its index holds no long texts
	},
	Lock:     " FOR UPDATE",
	Now:      `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`,
	Append:   `WITH next AS (UPDATE change_counter SET last = last + 1 RETURNING last) INSERT INTO changes (kind, id, status, seq) SELECT ?, ?, ?, last FROM next RETURNING seq`,
	Once:     `SELECT pg_advisory_xact_lock(7091320412)`, // any number that nobody else takes
	Exists:   func(err error) bool { return code(err) == "23505" },
	Kind:     kind,
	Again:    func(err error) bool { return slices.Contains([]string{"40001", "40P01"}, code(err)) },
	Undone:   undone,
	Patience: patience,
	Views:    &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
	Changes:  &sql.TxOptions{Isolation: sql.LevelReadCommitted},
}

// numbered spells the parameters $1, $2 and so on; no text in a statement has a
// question mark.
func numbered(query string) string {
	parts := strings.Split(query, "?")
	var b strings.Builder
	for i, part := range parts[:len(parts)-1] {
		b.WriteString(part + "$" + strconv.Itoa(i+1))
	}
	b.WriteString(parts[len(parts)-1])
	return b.String()
}

// Options of Open.
type Options struct {
	URL      string // postgres://[user@]host[:port]/database[?…]; without a password
	Password string // "" = as libpq finds it: PGPASSFILE, ~/.pgpass
}

// Sentinels of Check.
var (
	ErrURL      = errors.New("want postgres://USER@HOST[:PORT]/DATABASE")
	ErrPassword = errors.New("the URL holds a password: put it into a file of its own, and name that with catalog.password_file or PGPASSFILE")
)

// Check looks at a URL without connecting. What it says never quotes a password.
func Check(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || len(u.Path) < 2 {
		return ErrURL
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return ErrPassword
	}
	return nil
}

// Open connects to a database and brings it to this program's version; the database
// itself must be there. A newer one is refused with sqltx.ErrNewer.
func Open(ctx context.Context, o Options) (records.DB, error) {
	cfg, err := configure(o)
	if err != nil {
		return nil, fmt.Errorf("open catalog database: %w", err)
	}
	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(durable))
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := sqltx.Migrate(ctx, dialect, db, migrations); err != nil {
		db.Close()
		return nil, fmt.Errorf("open catalog database %s at %s: %w", cfg.Database, cfg.Host, err)
	}
	return sqltx.New(dialect, db, db), nil
}

func configure(o Options) (*pgx.ConnConfig, error) {
	if err := Check(o.URL); err != nil {
		return nil, err
	}
	u, _ := url.Parse(o.URL)
	if q := u.Query(); !q.Has("sslmode") && os.Getenv("PGSSLMODE") == "" && beyond(u) {
		// Elsewhere than on this machine, a server shows who it is.
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
	}
	cfg, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	if o.Password != "" {
		cfg.Password = o.Password
	}
	cfg.ConnectTimeout = connectTime
	cfg.RuntimeParams["lock_timeout"] = lockTime
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = idleTime
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "glanced"
	}
	d := net.Dialer{Timeout: connectTime, Control: giveUp}
	cfg.DialFunc = d.DialContext
	return cfg, nil
}

// beyond tells whether a URL names a server on another machine.
func beyond(u *url.URL) bool {
	host := u.Hostname()
	if h := u.Query().Get("host"); h != "" {
		host = h
	}
	if host == "" || strings.HasPrefix(host, "/") || host == "localhost" {
		return false
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback()
}

// giveUp ends a connection whose other side has fallen silent.
func giveUp(network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var refused error
	err := c.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
	return errors.Join(err, refused)
}

// durable makes commits survive a crash of the server, whatever its default is.
func durable(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
	return err
}

// code is the SQLSTATE of an error that the server sent; "" where it is none.
func code(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// kind adds the sentinel of the contract that an error stands for.
func kind(err error) error {
	switch c := code(err); {
	case c == "53100":
		return fmt.Errorf("%w: %w", records.ErrFull, err)
	case slices.Contains([]string{"40001", "40P01", "55P03", "53300"}, c):
		return fmt.Errorf("%w: %w", records.ErrBusy, err)
	case strings.HasPrefix(c, "08"), strings.HasPrefix(c, "57P"), c == "25P03", c == "" && lost(err):
		return fmt.Errorf("%w: %w", records.ErrUnreachable, err)
	}
	return err
}

// undone tells whether a commit was refused by the server, which then has rolled back. One
// that is shut down may have committed before it said so.
func undone(err error) bool {
	c := code(err)
	return c != "" && !strings.HasPrefix(c, "57P") && !strings.HasPrefix(c, "08")
}

// lost tells whether an error is of the way to the server.
func lost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || pgconn.SafeToRetry(err)
}
