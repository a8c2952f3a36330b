// Package overhttp is what the drivers of stores that are reached over HTTP share: whom
// they trust, how an answer's headers are read, and how a server's words are told. It
// knows no store, and makes no request.
package overhttp

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"unicode"
)

// Authorities are the certificates in a PEM file; nil, the system's, where there is no
// file. Errors name ca_file, the key of every store's configuration.
func Authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// HostPort is host[:port] in lower case and with the port, where it is the scheme's own,
// too.
func HostPort(host string, tls bool) string {
	host = strings.ToLower(host)
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	port := "80"
	if tls {
		port = "443"
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// longText is how much of a server's text is told, bytes.
const longText = 200

// Clip makes text of a server fit for a log.
func Clip(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
	if len(text) > longText {
		text = strings.ToValidUTF8(text[:longText], "") + "…"
	}
	return text
}
