package rbd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glanced/backends/setting"
)

func TestLocations(t *testing.T) {
	for text, want := range map[string]location{
		// As glance_store 4.1 writes them.
		"rbd://0704961f-b398-4df1-95ee-13c2f5809f7e/images/6e1c9c2e-0f39-4f0c-9b0a-6b6d2f4a3a55/snap": {"0704961f-b398-4df1-95ee-13c2f5809f7e", "images", "6e1c9c2e-0f39-4f0c-9b0a-6b6d2f4a3a55", "snap"},
		"rbd://f/a%20pool%25/k%20with%20space%2541%E1%BA%A3/snap":                                     {"f", "a pool%", "k with space%41ả", "snap"},
		"rbd://an-old%2Eone": {image: "an-old.one"},
	} {
		got, err := parseLocation(text)
		if err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
		if again, err := parseLocation(got.text()); err != nil || again != want {
			t.Errorf("%s is written %s, and read %+v, %v", text, got.text(), again, err)
		}
	}
	if got := (location{"f", "p", "k with space%41ả~/", "snap"}).text(); got != "rbd://f/p/k%20with%20space%2541%E1%BA%A3~%2F/snap" {
		t.Errorf("written %s", got)
	}
	for _, text := range []string{"", "k", "rbd:", "rbd://", "rbd:///", "rbd://f/p", "rbd://f/p/i", "rbd://f/p/i/s/x", "rbd://f/p/i/", "rbd://f/p//s", "rbd:///p/i/s",
		"rbd://f/p/i%2Fj/s", "rbd://f/p/i@s/s", "rbd://f/p/%zz/s", "rbd://f/p/../s", "rbd://f/p/i%00/s", "rbd://f/p/%ff/s", "RBD://f/p/i/s", "file:///f/p/i/s", "rbd://" + strings.Repeat("k", 300)} {
		if got, err := parseLocation(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func FuzzLocation(f *testing.F) {
	f.Add("rbd://f/p/i%20/s")
	f.Add("rbd://i")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLocation(text)
		if err != nil {
			return
		}
		if again, err := parseLocation(l.text()); err != nil || again != l {
			t.Errorf("%q is %+v, written %s, and read %+v, %v", text, l, l.text(), again, err)
		}
	})
}

func TestConfigurations(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := Config{MonHost: "127.0.0.1", Keyring: there}
	c, err := good.complete()
	if err != nil || c.Pool != "images" || c.User != "glance" || c.Conf != "" || c.ChunkSize != 8<<20 || time.Duration(c.Timeout) != 30*time.Second || c.Connections != 16 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, _ := (Config{}).complete(); c.Conf != "/etc/ceph/ceph.conf" {
		t.Errorf("without mon_host: %+v", c)
	}
	if good.Memory() != c.Memory() || good.Memory() != 32<<20 {
		t.Errorf("holds %d bytes", good.Memory())
	}
	for want, change := range map[string]func(*Config){
		"pool is":                 func(c *Config) { c.Pool = "a/b" },
		"without client.":         func(c *Config) { c.User = "client.glance" },
		"set one":                 func(c *Config) { c.KeyFile = there },
		"conf: open":              func(c *Config) { c.Conf = there + "-not" },
		"keyring: open":           func(c *Config) { c.Keyring = there + "-not" },
		"key_file: open":          func(c *Config) { c.Keyring, c.KeyFile = "", there+"-not" },
		"chunk_size is 3145728":   func(c *Config) { c.ChunkSize = 3 << 20 },
		"chunk_size is 524288":    func(c *Config) { c.ChunkSize = 512 << 10 },
		"chunk_size is 67108864":  func(c *Config) { c.ChunkSize = 64 << 20 },
		"timeout = 1.5s":          func(c *Config) { c.Timeout = setting.Duration(1500 * time.Millisecond) },
		"timeout = 1ms":           func(c *Config) { c.Timeout = setting.Duration(time.Millisecond) },
		"connections = -1":        func(c *Config) { c.Connections = -1 },
		"connections = 100000000": func(c *Config) { c.Connections = 100_000_000 },
	} {
		bad := good
		change(&bad)
		if _, err := bad.complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("opened: %v, want %s", err, want)
		}
	}
}
