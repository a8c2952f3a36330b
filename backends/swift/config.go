package swift

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"glanced/backends/setting"
)

// Config of one store. The tags are the keys of the configuration file that this
// kind has beside those of every store.
type Config struct {
	ID       string `toml:"-"` // goes into each Location
	ReadOnly bool   `toml:"-"` // nothing in the container is changed

	AuthURL       string         `toml:"auth_url"`       // https://host[:port]/v3; "" = what config_file says of reference
	AuthVersion   int            `toml:"auth_version"`   // 1, 2 or 3; 0 = as auth_url says
	User          string         `toml:"user"`           // with tempauth account:user
	Key           setting.Secret `toml:"key"`            // the password, or
	KeyFile       string         `toml:"key_file"`       // a file whose first line it is
	Project       string         `toml:"project"`        // "" = what is before the colon of user, as in Glance's configuration
	UserDomain    string         `toml:"user_domain"`    // a name; "" = the domain whose id is default
	ProjectDomain string         `toml:"project_domain"` // the same
	Region        string         `toml:"region"`         // "" = the first of the service catalog
	EndpointType  string         `toml:"endpoint_type"`  // public, internal or admin; "" = public

	Container       string        `toml:"container"`               // "" = glance
	CreateContainer bool          `toml:"create_container"`        // make it before the first upload if it is not there
	TenantPrefix    string        `toml:"tenant_prefix"`           // the containers of a multi-tenant Glance are <prefix><id>; "" = <container>_
	LargeObjectSize setting.Bytes `toml:"large_object_size"`       // from this on images are written in segments, 0 = 5120 MiB
	ChunkSize       setting.Bytes `toml:"large_object_chunk_size"` // of a segment, 0 = 200 MiB
	ConfigFile      string        `toml:"config_file"`             // Glance's swift_store_config_file: accounts by reference
	Reference       string        `toml:"reference"`               // what locations call this store's account, "" = ref1
	CAFile          string        `toml:"ca_file"`                 // PEM; who signed the servers' certificates, "" = those whom the system trusts
	Connections     int           `toml:"connections"`             // open at once to a server, as many again for uploads; 0 = 64
	GlanceHosts     []string      `toml:"glance_hosts"`            // host[:port]: locations of Glance on these are read too

	stall    time.Duration            `toml:"-"` // tests; 0 = stallTime
	listWait time.Duration            `toml:"-"` // tests; 0 = listTime
	dial     func(addr string) string `toml:"-"` // tests: where to connect to instead; nil = there
}

// Glance's defaults (glance_store, _drivers/swift/store.py).
const (
	defaultContainer   = "glance"
	defaultReference   = "ref1"
	defaultLarge       = 5120 << 20
	defaultChunk       = 200 << 20
	defaultConnections = 64
)

// maxPlain is the largest object that is not made of segments, which is also the largest
// segment: max_file_size of a server that says nothing else.
const maxPlain = 5 << 30

// complete fills in what is not set, and says all that is wrong.
func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	c.Container = cmp.Or(c.Container, defaultContainer)
	c.TenantPrefix = cmp.Or(c.TenantPrefix, c.Container+"_")
	c.Reference = cmp.Or(c.Reference, defaultReference)
	c.EndpointType = cmp.Or(c.EndpointType, "public")
	c.LargeObjectSize = cmp.Or(c.LargeObjectSize, defaultLarge)
	c.ChunkSize = cmp.Or(c.ChunkSize, defaultChunk)
	c.Connections = cmp.Or(c.Connections, defaultConnections)
	c.stall = cmp.Or(c.stall, stallTime)
	c.listWait = cmp.Or(c.listWait, listTime)
	switch {
	case c.AuthURL == "" && c.ConfigFile == "":
		bad("neither auth_url nor config_file is set: set auth_url, user and key to those of the account")
	case c.AuthURL == "" && (c.User != "" || c.Key != "" || c.KeyFile != "" || c.Project != ""):
		bad("auth_url is not set: set it, or leave user, key and project to config_file")
	case c.AuthURL != "" && c.User == "":
		bad("user is not set")
	case c.AuthURL != "" && (c.Key == "") == (c.KeyFile == ""):
		bad("set either key or key_file")
	}
	if c.AuthURL != "" {
		if _, err := parseAuthURL(c.AuthURL); err != nil {
			bad("auth_url: %w", err)
		}
	}
	if c.AuthVersion < 0 || c.AuthVersion > 3 {
		bad("auth_version = %d: want 1, 2 or 3", c.AuthVersion)
	}
	if !slices.Contains([]string{"public", "internal", "admin"}, c.EndpointType) {
		bad("endpoint_type = %q: want public, internal or admin", c.EndpointType)
	}
	if err := checkContainer(c.Container); err != nil {
		bad("container: %w", err)
	}
	if checkKey(c.Reference) != nil || strings.ContainsAny(c.Reference, ":?#[]") {
		bad("reference = %q: want one word", c.Reference)
	}
	if c.LargeObjectSize < 1 || c.LargeObjectSize > maxPlain {
		bad("large_object_size is %d bytes: want at most 5120MiB", int64(c.LargeObjectSize))
	}
	if c.ChunkSize < 1 || c.ChunkSize > maxPlain {
		bad("large_object_chunk_size is %d bytes: want at most 5120MiB", int64(c.ChunkSize))
	}
	if c.Connections < 1 {
		bad("connections = %d: want at least 1", c.Connections)
	}
	return c, errors.Join(errs...)
}

// Moved tells whether c is of another container, or calls its account otherwise, than was.
func (c Config) Moved(was Config) bool {
	place := func(c Config) [8]string {
		return [8]string{c.AuthURL, c.Project, c.ProjectDomain, c.Region, c.Container, c.TenantPrefix, c.ConfigFile, c.Reference}
	}
	return place(c) != place(was)
}

// login is who asks for tokens, and where.
type login struct {
	url              string
	version          int // 0 = as url says
	project, user    string
	key              setting.Secret
	userDomain       domain
	projectDomain    domain
	region, endpoint string
}

// domain is a Keystone domain, by its name or else by its id.
type domain struct{ name, id string }

// own is the configured account: that of auth_url, or that of config_file.
func (c Config) own(references map[string]login) (login, error) {
	if c.AuthURL == "" {
		l, ok := references[c.Reference]
		if !ok {
			return l, fmt.Errorf("config_file has no section [%s]: set reference to one that it has, or auth_url", c.Reference)
		}
		return l, nil
	}
	key := c.Key
	if c.KeyFile != "" {
		var err error
		if key, err = setting.ReadSecret(c.KeyFile); err != nil {
			return login{}, fmt.Errorf("key_file: %w", err)
		}
	}
	l := login{url: c.AuthURL, version: c.AuthVersion, project: c.Project, user: c.User, key: key,
		userDomain: domain{name: c.UserDomain}, projectDomain: domain{name: c.ProjectDomain}}
	return c.finish(l), nil
}

// finish fills in what a login has from the store, or by default.
func (c Config) finish(l login) login {
	if l.version == 0 {
		l.version = versionOf(l.url)
	}
	l = l.split()
	for _, d := range []*domain{&l.userDomain, &l.projectDomain} {
		if *d == (domain{}) {
			d.id = "default"
		}
	}
	l.region, l.endpoint = c.Region, c.EndpointType
	return l
}

// split parts project:user, which is one word only in the first version of authentication.
func (l login) split() login {
	if project, user, ok := strings.Cut(l.user, ":"); ok && l.version != 1 && l.project == "" {
		l.project, l.user = project, user
	}
	return l
}

// versionOf is the version of authentication that an address speaks of.
func versionOf(address string) int {
	u, err := url.Parse(address)
	if err == nil {
		for v, mark := range []string{1: "/v1", 2: "/v2", 3: "/v3"} {
			if mark != "" && strings.Contains(u.Path, mark) {
				return v
			}
		}
	}
	return 3
}

// parseAuthURL reads http(s)://host[:port]/path.
func parseAuthURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil { // the text may hold a password
		return nil, errors.New("want https://host[:port]/v3, and no credentials in it")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q: want https://host[:port]/v3", text)
	}
	return u, nil
}
