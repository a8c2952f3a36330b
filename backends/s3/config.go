package s3

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"glanced/backends/overhttp"
	"glanced/backends/setting"
)

// Config of one store. The tags are the keys of the configuration file that this
// kind has beside those of every store.
type Config struct {
	ID       string `toml:"-"` // goes into each Location
	ReadOnly bool   `toml:"-"` // nothing in the bucket is changed

	Endpoint      string         `toml:"endpoint"`        // http(s)://host[:port]
	Bucket        string         `toml:"bucket"`          //
	Prefix        string         `toml:"prefix"`          // before every key that is written, such as "images/"
	Region        string         `toml:"region"`          // "" = us-east-1, which most servers but Amazon's take for any
	AccessKey     string         `toml:"access_key"`      // "" = requests are not signed
	SecretKey     setting.Secret `toml:"secret_key"`      // or
	SecretKeyFile string         `toml:"secret_key_file"` // a file whose first line it is
	PathStyle     string         `toml:"path_style"`      // path: host/bucket/key; virtual: bucket.host/key; auto, "" = virtual for Amazon's hosts
	CAFile        string         `toml:"ca_file"`         // PEM; who signed the server's certificate, "" = one whom the system trusts
	CreateBucket  bool           `toml:"create_bucket"`   // make it before the first upload if it is not there
	Connections   int            `toml:"connections"`     // open at once, 0 = 64
	PartSize      setting.Bytes  `toml:"part_size"`       // of uploads in parts, 5 to 64 MiB, 0 = 16 MiB; those of the largest images are larger
	UploadMemory  setting.Bytes  `toml:"upload_memory"`   // of all uploads together, 0 = 128 MiB; one takes 64 MiB at most
	UploadSpool   string         `toml:"upload_spool"`    // folder for parts that memory has no room for, "" = $TMPDIR
	GlanceHosts   []string       `toml:"glance_hosts"`    // host[:port]: locations of Glance on these are read too, with the keys in them

	stall time.Duration                   `toml:"-"` // tests; 0 = stallTime
	dial  func(addr string) string        `toml:"-"` // tests: where to connect to instead; nil = there
	parts func(number int, n int64) int64 `toml:"-"` // tests: how large part number is, n bytes being written; nil = as partLen says
}

const (
	defaultPart        = 16 << 20
	defaultMemory      = 128 << 20
	defaultConnections = 64
	minPart            = 5 << 20  // S3's own, of all parts but the last
	maxMemory          = 64 << 20 // what one upload holds at most; so no part in memory is larger
	maxObject          = 5 << 40
	maxParts           = 10_000
)

// complete fills in what has a default, and says what is wrong.
func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := parseEndpoint(c.Endpoint); err != nil {
		bad("endpoint: %w", err)
	}
	if c.Bucket == "" || strings.ContainsAny(c.Bucket, "/@: \x00") {
		bad("bucket is not the name of one")
	}
	if c.Prefix != "" && (strings.HasPrefix(c.Prefix, "/") || strings.Contains(c.Prefix, "//") || strings.ContainsAny(c.Prefix, "@\x00") || !strings.HasSuffix(c.Prefix, "/")) {
		bad("prefix = %q: want a folder such as images/", c.Prefix)
	}
	switch c.PathStyle {
	case "":
		c.PathStyle = "auto"
	case "auto", "path", "virtual":
	default:
		bad("path_style = %q: want auto, path or virtual", c.PathStyle)
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.SecretKey != "" && c.SecretKeyFile != "" {
		bad("secret_key and secret_key_file are both set: set one")
	}
	if hasSecret := c.SecretKey != "" || c.SecretKeyFile != ""; (c.AccessKey != "") != hasSecret {
		bad("access_key and a secret key go together: set both (secret_key or secret_key_file), or none to send unsigned requests")
	}
	if c.PartSize == 0 {
		c.PartSize = defaultPart
	}
	if c.PartSize < minPart || c.PartSize > maxMemory {
		bad("part_size is %d bytes: want 5MiB to 64MiB", int64(c.PartSize))
	}
	if c.UploadMemory == 0 {
		c.UploadMemory = defaultMemory
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.Connections < 1 {
		bad("connections = %d: want at least 1", c.Connections)
	}
	if c.stall == 0 {
		c.stall = stallTime
	}
	return c, errors.Join(errs...)
}

// Moved tells whether c is of another bucket, or of another part of it, than was.
func (c Config) Moved(was Config) bool {
	return c.Endpoint != was.Endpoint || c.Bucket != was.Bucket || c.Prefix != was.Prefix
}

// Memory is what the store's uploads hold together at most, bytes.
func (c Config) Memory() int64 {
	if c.UploadMemory == 0 {
		return defaultMemory
	}
	return int64(c.UploadMemory)
}

// secret is the secret key, wherever it is.
func (c Config) secret() (string, error) {
	if c.SecretKeyFile == "" {
		return string(c.SecretKey), nil
	}
	secret, err := setting.ReadSecret(c.SecretKeyFile)
	if err != nil {
		return "", fmt.Errorf("secret_key_file: %w", err)
	}
	return string(secret), nil
}

// endpoint is a server.
type endpoint struct {
	tls  bool
	host string // host:port, the port always said
}

func (e endpoint) scheme() string {
	if e.tls {
		return "https"
	}
	return "http"
}

// text is host[:port] as it is written: without the scheme's own port.
func (e endpoint) text() string {
	if port := map[bool]string{true: ":443", false: ":80"}[e.tls]; strings.HasSuffix(e.host, port) {
		return strings.TrimSuffix(e.host, port)
	}
	return e.host
}

func (e endpoint) url() string { return e.scheme() + "://" + e.text() }

func parseEndpoint(text string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil { // the text may hold a password
		return endpoint{}, errors.New("want https://host[:port], and no credentials in it")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, fmt.Errorf("%q: want https://host[:port]", text)
	}
	return endpoint{u.Scheme == "https", overhttp.HostPort(u.Host, u.Scheme == "https")}, nil
}
