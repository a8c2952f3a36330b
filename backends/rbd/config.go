package rbd

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"
	"time"

	"glanced/backends/setting"
)

// Config of one store. The tags are the keys of the configuration file that this
// kind has beside those of every store.
type Config struct {
	ID       string `toml:"-"` // goes into each Location
	ReadOnly bool   `toml:"-"` // nothing in the pool is changed

	Pool        string           `toml:"pool"`        // "" = images
	User        string           `toml:"user"`        // without "client."; "" = glance
	Conf        string           `toml:"conf"`        // ceph.conf; "" = /etc/ceph/ceph.conf, or none where mon_host is set
	MonHost     string           `toml:"mon_host"`    // the monitors, as in ceph.conf; "" = as conf says
	Keyring     string           `toml:"keyring"`     // the user's keyring, or
	KeyFile     string           `toml:"key_file"`    // a file that holds nothing but the key; neither = as conf says
	ChunkSize   setting.Bytes    `toml:"chunk_size"`  // of the RADOS objects of an image, a power of two, 1 to 32 MiB, 0 = 8 MiB
	Timeout     setting.Duration `toml:"timeout"`     // of one operation of the cluster, whole seconds, 0 = 30 s
	Connections int              `toml:"connections"` // calls at once that read, and as many again that write, 0 = 16
	Cache       bool             `toml:"cache"`       // read through the daemon's cache, as a store that is far
}

const (
	defaultPool        = "images"
	defaultUser        = "glance"
	defaultConf        = "/etc/ceph/ceph.conf"
	defaultChunk       = 8 << 20
	minChunk, maxChunk = 1 << 20, 32 << 20
	defaultTimeout     = 30 * time.Second
	defaultConnections = 16

	// pieceLen is the most that one call reads or writes, bytes.
	pieceLen = 1 << 20
)

// complete fills in what has a default, and says what is wrong.
func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		field *string
		value string
	}{{&c.Pool, defaultPool}, {&c.User, defaultUser}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.Conf == "" && c.MonHost == "" {
		c.Conf = defaultConf
	}
	if strings.ContainsAny(c.Pool, "/@\x00") {
		bad("pool is not the name of one")
	}
	if strings.HasPrefix(c.User, "client.") || strings.Contains(c.User, "\x00") {
		bad("user = %q: want the name without client.", c.User)
	}
	if c.Keyring != "" && c.KeyFile != "" {
		bad("keyring and key_file are both set: set one")
	}
	for key, file := range map[string]string{"conf": c.Conf, "keyring": c.Keyring, "key_file": c.KeyFile} {
		if file != "" {
			if err := readable(file); err != nil {
				bad("%s: %w", key, err)
			}
		}
	}
	if c.ChunkSize == 0 {
		c.ChunkSize = defaultChunk
	}
	if c.ChunkSize < minChunk || c.ChunkSize > maxChunk || bits.OnesCount64(uint64(c.ChunkSize)) != 1 {
		bad("chunk_size is %d bytes: want a power of two, 1MiB to 32MiB", int64(c.ChunkSize))
	}
	if c.Timeout == 0 {
		c.Timeout = setting.Duration(defaultTimeout)
	}
	if t := time.Duration(c.Timeout); t < time.Second || t%time.Second != 0 {
		bad("timeout = %v: want whole seconds", t)
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.Connections < 1 || c.Connections > 1024 {
		bad("connections = %d: want 1 to 1024", c.Connections)
	}
	return c, errors.Join(errs...)
}

// readable says why a file cannot be read. The library would say only that it knows no
// monitor, or no key.
func readable(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// Moved tells whether c says another place than was, or another way to be read: keys and
// what calls may take can change while the store is open.
func (c Config) Moved(was Config) bool {
	return c.Pool != was.Pool || c.Conf != was.Conf || c.MonHost != was.MonHost || c.Cache != was.Cache
}

// Memory is what the store's calls hold together at most, bytes.
func (c Config) Memory() int64 {
	n := c.Connections
	if n == 0 {
		n = defaultConnections
	}
	return 2 * int64(n) * pieceLen
}

// Far reports whether the store is read through the daemon's cache.
func (c Config) Far() bool { return c.Cache }
