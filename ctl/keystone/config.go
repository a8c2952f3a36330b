package keystone

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"glanced/backends/setting"
)

// Config says where Keystone is, and who asks it. The tags are the keys of the
// configuration file.
type Config struct {
	AuthURL           string         `toml:"auth_url"`            // https://host[:port][/path], with or without /v3
	Username          string         `toml:"username"`            // the service's user, who may validate tokens: role service or admin
	Password          setting.Secret `toml:"password"`            // its password, or
	PasswordFile      string         `toml:"password_file"`       // a file whose first line it is
	ProjectName       string         `toml:"project_name"`        // the project in which the user has that role
	UserDomainName    string         `toml:"user_domain_name"`    // the user's domain
	ProjectDomainName string         `toml:"project_domain_name"` // the project's
	CAFile            string         `toml:"cafile"`              // PEM: who signed Keystone's certificate; "" = whom the system trusts

	now     func() time.Time // tests; nil = time.Now
	checked time.Duration    // tests; 0 = checkedFor
}

// Check says all that is wrong. It reads no file.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, err := parseAuthURL(c.AuthURL); err != nil {
		bad("auth_url: %w", err)
	}
	for _, must := range []struct{ key, value string }{
		{"username", c.Username}, {"project_name", c.ProjectName},
		{"user_domain_name", c.UserDomainName}, {"project_domain_name", c.ProjectDomainName},
	} {
		if must.value == "" {
			bad("%s is not set", must.key)
		}
	}
	if (c.Password == "") == (c.PasswordFile == "") {
		bad("set either password or password_file")
	}
	return errors.Join(errs...)
}

// parseAuthURL reads http(s)://host[:port]/path.
func parseAuthURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil { // the text may hold a password
		return nil, errors.New("want https://host[:port]/v3, and no credentials in it")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || strings.Contains(text, `"`) {
		return nil, fmt.Errorf("%q: want https://host[:port]/v3", text)
	}
	return u, nil
}

// endpoint is where version 3 is, with a slash at its end.
func (c Config) endpoint() string {
	return strings.TrimSuffix(strings.TrimRight(c.AuthURL, "/"), "/v3") + "/v3/"
}

// secret is the password, wherever it is kept.
func (c Config) secret() (setting.Secret, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	s, err := setting.ReadSecret(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return s, nil
}

// authorities are the certificates of cafile; nil, the system's, where there is none.
func (c Config) authorities() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("cafile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("cafile: %s holds no certificate in PEM", c.CAFile)
	}
	return pool, nil
}
