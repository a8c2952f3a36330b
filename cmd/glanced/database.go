package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"glanced/backends/setting"
	"glanced/catalog/records"
	"glanced/catalog/records/postgres"
	"glanced/catalog/records/sqlite"
)

// sqlitePath is the database file of a URL; "" where it is another kind of database.
func (c catalogConfig) sqlitePath() string {
	path, _ := strings.CutPrefix(c.URL, "sqlite:")
	if path == c.URL {
		return ""
	}
	return path
}

// minLease is what a daemon needs to renew its leases in, three times.
const minLease = time.Second

func (c catalogConfig) check() error {
	var errs []error
	if c.sqlitePath() == "" {
		if err := postgres.Check(c.URL); err != nil {
			errs = append(errs, fmt.Errorf("catalog.url: want sqlite:PATH or a PostgreSQL database: %w", err))
		}
	} else if c.PasswordFile != "" {
		errs = append(errs, errors.New("catalog.password_file: SQLite has no password"))
	}
	if time.Duration(c.Lease) < minLease {
		errs = append(errs, fmt.Errorf("catalog.lease is %v: at least %v is needed", time.Duration(c.Lease), minLease))
	}
	return errors.Join(errs...)
}

// open opens the database that holds the records.
func (c catalogConfig) open(ctx context.Context) (records.DB, error) {
	if path := c.sqlitePath(); path != "" {
		return sqlite.OpenReserved(ctx, path, int64(c.Reserve))
	}
	o := postgres.Options{URL: c.URL}
	if c.PasswordFile != "" {
		secret, err := setting.ReadSecret(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("catalog.password_file: %w", err)
		}
		o.Password = string(secret)
	}
	return postgres.Open(ctx, o)
}
