package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhatTheCatalogsDatabaseMayBe(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`url = "postgres://glance@db/glance"`, ""},
		{`url = "postgres:///glance?host=/run/postgresql"` + "\npassword_file = \"p\"\nlease = \"5s\"", ""},
		{`url = "sqlite:"`, "catalog.url"},
		{`url = "mysql://glance@db/glance"`, "catalog.url"},
		{`url = "postgres://glance:secret@db/glance"`, "catalog.password_file"},
		{`password_file = "p"`, "SQLite has no password"},
		{`lease = "10ms"`, "at least 1s"},
	} {
		dir, path := writeConfig(t, "data_dir = \"%DIR%\"\n[catalog]\n"+c.text+"\n")
		cfg, err := loadConfig(path)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("the password is said: %v", err)
		case err == nil && cfg.Catalog.PasswordFile != "" && cfg.Catalog.PasswordFile != fmt.Sprint(dir, "/p"):
			t.Errorf("the password file is %s", cfg.Catalog.PasswordFile)
		}
	}
}
