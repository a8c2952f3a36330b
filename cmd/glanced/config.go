package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"glanced/backends/all"
	"glanced/backends/setting"
	"glanced/catalog/access"
	"glanced/ctl/keystone"
)

//go:embed default.toml
var defaultConfig []byte

// config mirrors the TOML file. Field names are the file's keys.
type config struct {
	DataDir string        `toml:"data_dir"`
	HTTP    httpConfig    `toml:"http"`
	Control controlConfig `toml:"control"`
	NBD     nbdConfig     `toml:"nbd"`
	FUSE    fuseConfig    `toml:"fuse"`
	Memory  memoryConfig  `toml:"memory"`
	Log     logConfig     `toml:"log"`
	Staging stagingConfig `toml:"staging"`
	Spool   spoolConfig   `toml:"spool"`
	Cache   cacheConfig   `toml:"cache"`
	Quota   quotaConfig   `toml:"quota"`
	Auth    authConfig    `toml:"auth"`
	Catalog catalogConfig `toml:"catalog"`

	StoreTables []map[string]any `toml:"stores"` // as they are written
	Stores      []all.Config     `toml:"-"`      // what they say
}

type httpConfig struct {
	Listen         string `toml:"listen"`          // host:port; "" = no HTTP
	AllowPlaintext bool   `toml:"allow_plaintext"` // listen beyond loopback without TLS
	TrustForwarded bool   `toml:"trust_forwarded"` // a proxy in front sets X-Forwarded-Proto and X-Forwarded-Host
}

type controlConfig struct {
	Socket string `toml:"socket"`
	Mode   string `toml:"mode"`  // octal
	Group  string `toml:"group"` // "" = the daemon's own

	Users []hostUserConfig `toml:"users"` // who users of this host are
}

// hostUserConfig makes a user or a group of the host an identity, at the control
// socket, the NBD socket and the mount alike.
type hostUserConfig struct {
	User    string   `toml:"user"`
	Group   string   `toml:"group"`
	Project string   `toml:"project"`
	Roles   []string `toml:"roles"`
}

type nbdConfig struct {
	Listen         []string `toml:"listen"`    // unix:PATH or tcp:HOST:PORT
	Anonymous      string   `toml:"anonymous"` // none | public | all
	AllowPlaintext bool     `toml:"allow_plaintext"`
}

type fuseConfig struct {
	Mountpoint  string `toml:"mountpoint"` // "" = no mount
	Passthrough bool   `toml:"passthrough"`
}

type memoryConfig struct {
	Budget byteSize `toml:"budget"`
}

type logConfig struct {
	Level  string `toml:"level"`  // debug | info | warn | error
	Format string `toml:"format"` // auto | text | json
	File   string `toml:"file"`   // "" = standard error
}

type stagingConfig struct {
	Path string `toml:"path"` // made at start; uploads go straight into a store and leave it empty
}

type spoolConfig struct {
	Path  string   `toml:"path"`
	Limit byteSize `toml:"limit"` // what the files may take, allocated

	ProjectLimit byteSize `toml:"project_limit"` // those of one project's images; 0 = half of limit
}

type quotaConfig struct {
	ImageCountTotal int64 `toml:"image_count_total"`
	ImageSizeTotal  int64 `toml:"image_size_total"` // MiB
}

type authConfig struct {
	Mode     string          `toml:"mode"` // token | keystone | none
	Tokens   []tokenConfig   `toml:"tokens"`
	Keystone keystone.Config `toml:"keystone"`
}

type tokenConfig struct {
	File    string   `toml:"file"`
	Project string   `toml:"project"`
	User    string   `toml:"user"`
	Roles   []string `toml:"roles"`
}

type catalogConfig struct {
	URL          string           `toml:"url"`           // sqlite:PATH or postgres://USER@HOST/DATABASE
	PasswordFile string           `toml:"password_file"` // "" = as libpq finds it
	Lease        setting.Duration `toml:"lease"`         // how long an upload is another daemon's whose daemon is silent
	FailedUpload string           `toml:"failed_upload"` // queued | killed
	Reserve      byteSize         `toml:"reserve"`       // room that SQLite keeps for deletions on a full disk; 0 = none
}

// byteSize is a number of bytes, written "512MiB".
type byteSize = setting.Bytes

// loadConfig reads a configuration file. An unknown key is an error that shows its line.
func loadConfig(path string) (*config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	cfg, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if cfg.DataDir == "" {
		return nil, fmt.Errorf("%s: data_dir is not set: name the folder that holds the daemon's state", path)
	}
	return cfg, cfg.finish(path)
}

// dirConfig is the embedded configuration with everything below dir.
func dirConfig(dir string) (*config, error) {
	cfg, err := parseConfig(nil)
	if err != nil {
		return nil, fmt.Errorf("embedded configuration: %w", err)
	}
	cfg.DataDir = dir
	return cfg, cfg.finish("embedded configuration")
}

// parseConfig lays text over the embedded configuration, so default.toml is the
// one place where defaults are kept. A list that text gives replaces the default one.
func parseConfig(text []byte) (*config, error) {
	cfg := &config{}
	for _, layer := range [][]byte{defaultConfig, text} {
		dec := toml.NewDecoder(bytes.NewReader(layer))
		dec.DisallowUnknownFields()
		if err := dec.Decode(cfg); err != nil {
			return nil, explainTOML(err)
		}
	}
	return cfg, nil
}

// goWords is how go-toml says what would have been right, in terms of this program.
var goWords = regexp.MustCompile(` into struct field \S+ of type (\S+)`)

// explainTOML names the line and the key, which go-toml keeps beside its message.
func explainTOML(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		var lines []error
		for _, e := range strict.Errors {
			row, _ := e.Position()
			lines = append(lines, fmt.Errorf("line %d: unknown key %q", row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(lines...)
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		return fmt.Errorf("line %d: %s", row, goWords.ReplaceAllString(decode.Error(), ": $1 is wanted here"))
	}
	return err
}

// finish makes paths absolute (relative ones lie below data_dir) and checks values.
func (c *config) finish(origin string) error {
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("%s: data_dir: %w", origin, err)
	}
	c.DataDir = dir
	for _, p := range []*string{&c.Control.Socket, &c.FUSE.Mountpoint, &c.Log.File, &c.Staging.Path, &c.Spool.Path, &c.Cache.Dir, &c.Catalog.PasswordFile,
		&c.Auth.Keystone.PasswordFile, &c.Auth.Keystone.CAFile} {
		*p = c.below(*p)
	}
	for i := range c.Auth.Tokens {
		c.Auth.Tokens[i].File = c.below(c.Auth.Tokens[i].File)
	}
	if err := c.readStores(); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	for i, l := range c.NBD.Listen {
		if p, ok := strings.CutPrefix(l, "unix:"); ok {
			c.NBD.Listen[i] = "unix:" + c.below(p)
		}
	}
	if p, ok := strings.CutPrefix(c.Catalog.URL, "sqlite:"); ok {
		c.Catalog.URL = "sqlite:" + c.below(p)
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	return nil
}

func (c *config) below(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.DataDir, path)
}

func (c *config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	oneOf := func(key, value string, words ...string) {
		for _, w := range words {
			if value == w {
				return
			}
		}
		bad("%s = %q: want one of %s", key, value, strings.Join(words, ", "))
	}
	oneOf("nbd.anonymous", c.NBD.Anonymous, "none", "public", "all")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "auto", "text", "json")
	oneOf("auth.mode", c.Auth.Mode, "token", "keystone", "none")
	oneOf("catalog.failed_upload", c.Catalog.FailedUpload, "queued", "killed")
	if c.Control.Socket == "" {
		bad("control.socket is empty: glancectl has no other way in")
	}
	if _, err := c.Control.mode(); err != nil {
		bad("control.mode = %q: want an octal file mode such as 0660", c.Control.Mode)
	}
	for i, u := range c.Control.Users {
		switch {
		case (u.User == "") == (u.Group == ""):
			bad("control.users %d: either user or group is needed", i+1)
		case u.Project == "":
			bad("control.users %d (%s%s): project is needed", i+1, u.User, u.Group)
		case !access.AnyRole(u.Roles):
			bad("control.users %d (%s%s): roles must have one of %s, %s and %s", i+1, u.User, u.Group, access.Reader, access.Member, access.Admin)
		}
	}
	if c.Memory.Budget < 32<<20 {
		bad("memory.budget is %d bytes: at least 32MiB is needed", int64(c.Memory.Budget))
	}
	if c.Spool.Path == "" || c.Spool.Limit == 0 {
		bad("spool: path and limit are needed: a folder for what compressed containers decompress to, and how much it may take, such as 64GiB")
	}
	if c.Quota.ImageCountTotal < 0 || c.Quota.ImageSizeTotal < 0 {
		bad("quota: limits cannot be negative; 0 means no limit")
	}
	if err := c.Catalog.check(); err != nil {
		bad("%w", err)
	}
	if c.HTTP.Listen != "" {
		loop, err := loopback(c.HTTP.Listen)
		switch {
		case err != nil:
			bad("http.listen = %q: %v", c.HTTP.Listen, err)
		case !loop && c.Auth.Mode == "none":
			bad("auth.mode = \"none\" lets anybody do anything: http.listen must stay on loopback, not %s", c.HTTP.Listen)
		case !loop && !c.HTTP.AllowPlaintext:
			bad("http.listen = %q is beyond loopback and would carry tokens in clear: put a TLS proxy in front, or set http.allow_plaintext = true", c.HTTP.Listen)
		}
	}
	if c.Auth.Mode == "token" && c.HTTP.Listen != "" && len(c.Auth.Tokens) == 0 {
		bad("auth.mode = \"token\" needs at least one [[auth.tokens]]")
	}
	if c.Auth.Mode == "keystone" {
		if err := c.Auth.Keystone.Check(); err != nil {
			bad("auth.keystone: %w", err)
		}
	}
	for i, t := range c.Auth.Tokens {
		if t.File == "" || t.Project == "" {
			bad("auth.tokens %d: file and project are needed", i+1)
		}
		if !access.AnyRole(t.Roles) {
			bad("auth.tokens %d: roles must have one of %s, %s and %s", i+1, access.Reader, access.Member, access.Admin)
		}
	}
	for _, l := range c.NBD.Listen {
		network, addr, err := splitListen(l)
		if err != nil {
			bad("nbd.listen: %v", err)
			continue
		}
		if network != "tcp" {
			continue
		}
		if loop, err := loopback(addr); err != nil {
			bad("nbd.listen = %q: %v", l, err)
		} else if !loop && !c.NBD.AllowPlaintext {
			bad("nbd.listen = %q is beyond loopback and not encrypted: set nbd.allow_plaintext = true if the network is trusted", l)
		}
	}
	errs = append(errs, c.checkStores()...)
	errs = append(errs, c.Cache.check())
	return errors.Join(errs...)
}

// projectLimit is what one project's images may take of the spool, bytes.
func (c spoolConfig) projectLimit() int64 {
	if c.ProjectLimit == 0 {
		return max(int64(c.Limit)/2, 1)
	}
	return int64(c.ProjectLimit)
}

func (c controlConfig) mode() (fs.FileMode, error) {
	n, err := strconv.ParseUint(c.Mode, 8, 32)
	if err != nil || n > 0o777 {
		return 0, errors.New("not a file mode")
	}
	return fs.FileMode(n), nil
}

// splitListen parses unix:PATH and tcp:HOST:PORT.
func splitListen(s string) (network, addr string, err error) {
	network, addr, ok := strings.Cut(s, ":")
	if !ok || addr == "" || (network != "unix" && network != "tcp") {
		return "", "", fmt.Errorf("%q: want unix:PATH or tcp:HOST:PORT", s)
	}
	return network, addr, nil
}

// loopback reports whether host:port can only be reached from this machine.
func loopback(addr string) (bool, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false, err
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback(), nil
}

// override applies the command line's addresses; NBD ones replace the TCP
// listeners and leave the unix sockets.
func (c *config) override(httpAddr string, nbdAddrs []string) error {
	if httpAddr != "" {
		c.HTTP.Listen = httpAddr
	}
	if len(nbdAddrs) > 0 {
		var listen []string
		for _, l := range c.NBD.Listen {
			if strings.HasPrefix(l, "unix:") {
				listen = append(listen, l)
			}
		}
		for _, a := range nbdAddrs {
			listen = append(listen, "tcp:"+strings.TrimPrefix(a, "tcp:"))
		}
		c.NBD.Listen = listen
	}
	return c.check()
}
