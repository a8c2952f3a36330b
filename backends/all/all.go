// Package all lists the kinds of store that are built in.
package all

import (
	"fmt"
	"reflect"
	"strings"

	"glanced/backends"
	"glanced/backends/file"
	"glanced/backends/http"
	"glanced/backends/rbd"
	"glanced/backends/retry"
	"glanced/backends/s3"
	"glanced/backends/swift"
)

// Common is what the configuration of a store has, whatever its kind. The tags are
// the keys of the configuration file.
type Common struct {
	ID          string `toml:"id"`          // how images and users name the store
	Type        string `toml:"type"`        // one of Types
	Description string `toml:"description"` // for users
	Default     bool   `toml:"default"`     // uploads go here that name no store
	Weight      int    `toml:"weight"`      // of several stores that have an image, the one of the greatest weight is read first
	ReadOnly    bool   `toml:"read_only"`   // no uploads, no deletions; nothing in it is changed
}

// Config is the configuration of one store.
type Config struct {
	Common
	Own any // what its kind has beside: a pointer to the Config of its package, as New makes it
}

// kind is one kind of store.
type kind struct {
	name  string
	empty func() any // the kind's own configuration, with its defaults
	below func(own any, below func(string) string)
	open  func(Common, any) (backends.Store, error)
	// foreign: others keep its objects. It takes no uploads and deletes nothing.
	foreign bool
	// moved tells whether a store's configuration says another place than before, or what
	// else cannot be had while the old one is open; nil = it always does.
	moved func(was, is any) bool
	files func(own any) []string // whose content is a part of the configuration, as keys
}

// kindOf is a kind by its configuration struct, whose toml tags are its keys.
type kindOf[C any] struct{ kind }

// of makes a kind: defaults are the values of keys that are left out, paths the fields
// that are paths, and may be relative.
func of[C any](name string, defaults C, paths func(*C) []*string, open func(Common, C) (backends.Store, error)) kindOf[C] {
	return kindOf[C]{kind{
		name:  name,
		empty: func() any { own := defaults; return &own },
		below: func(own any, below func(string) string) {
			for _, p := range paths(own.(*C)) {
				*p = below(*p)
			}
		},
		open: func(c Common, own any) (backends.Store, error) { return open(c, *own.(*C)) },
	}}
}

// reopened is k, whose stores can be opened anew beside what is open of them, unless
// moved: the place is another one. files are paths whose content matters; nil = none.
func (k kindOf[C]) reopened(moved func(is, was C) bool, files func(C) []string) kind {
	k.moved = func(was, is any) bool { return moved(*is.(*C), *was.(*C)) }
	if files != nil {
		k.files = func(own any) []string { return files(*own.(*C)) }
	}
	return k.kind
}

var kinds = []kind{
	of("file", file.Defaults, (*file.Config).LocalPaths, func(c Common, own file.Config) (backends.Store, error) {
		own.ID, own.ReadOnly = c.ID, c.ReadOnly
		return file.Open(own)
	}).reopened(file.Config.Moved, nil),
	of("http", http.Defaults, func(c *http.Config) []*string { return []*string{&c.CAFile, &c.Spool} }, func(c Common, own http.Config) (backends.Store, error) {
		own.ID = c.ID
		return repeated(http.Open(own))
	}).ofOthers(),
	of("rbd", rbd.Config{}, func(c *rbd.Config) []*string { return []*string{&c.Conf, &c.Keyring, &c.KeyFile} }, func(c Common, own rbd.Config) (backends.Store, error) {
		own.ID, own.ReadOnly = c.ID, c.ReadOnly
		return repeated(rbd.Open(own))
	}).reopened(rbd.Config.Moved, func(c rbd.Config) []string { return []string{c.Conf, c.Keyring, c.KeyFile} }),
	of("s3", s3.Config{}, func(c *s3.Config) []*string { return []*string{&c.SecretKeyFile, &c.CAFile, &c.UploadSpool} }, func(c Common, own s3.Config) (backends.Store, error) {
		own.ID, own.ReadOnly = c.ID, c.ReadOnly
		return repeated(s3.Open(own))
	}).reopened(s3.Config.Moved, func(c s3.Config) []string { return []string{c.SecretKeyFile, c.CAFile} }),
	of("swift", swift.Config{}, func(c *swift.Config) []*string { return []*string{&c.KeyFile, &c.ConfigFile, &c.CAFile} }, func(c Common, own swift.Config) (backends.Store, error) {
		own.ID, own.ReadOnly = c.ID, c.ReadOnly
		return repeated(swift.Open(own))
	}).reopened(swift.Config.Moved, func(c swift.Config) []string { return []string{c.KeyFile, c.ConfigFile, c.CAFile} }),
}

// repeated has what a store that is far could not do just now tried again.
func repeated[S backends.Store](s S, err error) (backends.Store, error) {
	if err != nil {
		return nil, err
	}
	return retry.Store(s, retry.Reads, retry.Changes), nil
}

func (k kindOf[C]) ofOthers() kind {
	k.foreign = true
	return k.kind
}

// Types are the kinds of store, as Common.Type names them.
func Types() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

func find(name string) (kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("there is no type %q; known are %s", name, strings.Join(Types(), ", "))
}

// New is the configuration of a store of one type, its own part empty.
func New(typ string) (Config, error) {
	k, err := find(typ)
	if err != nil {
		return Config{}, err
	}
	return Config{Common: Common{Type: typ}, Own: k.empty()}, nil
}

// Keys are the keys that a store of c's type may have: those of every store, then
// its own.
func (c Config) Keys() []string {
	return append(CommonKeys(), keys(reflect.TypeOf(c.Own).Elem())...)
}

// CommonKeys are the keys that every store may have.
func CommonKeys() []string { return keys(reflect.TypeFor[Common]()) }

func keys(config reflect.Type) []string {
	var names []string
	for i := range config.NumField() {
		if name := config.Field(i).Tag.Get("toml"); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// Below has below make the paths of c absolute.
func (c Config) Below(below func(path string) string) error {
	k, err := find(c.Type)
	if err == nil {
		k.below(c.Own, below)
	}
	return err
}

// Foreign tells that others keep the store's objects: see backends.ErrForeign.
func (c Config) Foreign() bool {
	k, err := find(c.Type)
	return err == nil && k.foreign
}

// Memory is what the store's uploads may hold at most, bytes; of most kinds they hold
// none to speak of.
func (c Config) Memory() int64 {
	if m, ok := c.Own.(interface{ Memory() int64 }); ok {
		return m.Memory()
	}
	return 0
}

// Open opens the store.
func (c Config) Open() (backends.Store, error) {
	k, err := find(c.Type)
	if err != nil {
		return nil, fmt.Errorf("store %q: %w", c.ID, err)
	}
	s, err := k.open(c.Common, c.Own)
	if err != nil {
		return nil, fmt.Errorf("store %q: %w", c.ID, err)
	}
	return s, nil
}
