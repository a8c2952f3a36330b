package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	connectTime = 5 * time.Second
	// stallTime is how long a connection may move no byte while an answer is awaited
	// or a body is on its way. S3 servers answer within it, but for one request: to
	// put the parts of a large upload together may take them minutes.
	stallTime    = 30 * time.Second
	completeTime = 5 * time.Minute
	idleTime     = 90 * time.Second
)

// dialer makes connections that fail when they stall.
type dialer struct {
	connections int
	authorities *x509.CertPool
	redirect    func(addr string) string // tests
}

// http is a client whose connections move bytes or fail within stall.
func (d dialer) http(stall time.Duration) *http.Client {
	plain := &net.Dialer{Timeout: connectTime, KeepAlive: 30 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if d.redirect != nil {
					addr = d.redirect(addr)
				}
				c, err := plain.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &stallConn{c, stall}, nil
			},
			TLSClientConfig:     &tls.Config{RootCAs: d.authorities, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 2 * connectTime,
			MaxConnsPerHost:     d.connections,
			MaxIdleConns:        d.connections,
			MaxIdleConnsPerHost: d.connections,
			IdleConnTimeout:     idleTime,
			DisableCompression:  true,
		},
		// A server that sends elsewhere does not choose where our requests go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// stallConn is a connection that fails when nothing moves, in either direction, for
// a time: a request's body that is taken keeps the answer awaited.
type stallConn struct {
	net.Conn
	most time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	c.Conn.SetDeadline(time.Now().Add(c.most))
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 { // in pieces, of which each is a sign of life
		c.Conn.SetDeadline(time.Now().Add(c.most))
		m, err := c.Conn.Write(p[:min(len(p), 64<<10)])
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}

// api makes a client of the SDK. It makes one attempt a call: who repeats what is
// decided in backends/retry. Checksums beyond the signature's are not sent, as
// servers other than Amazon's refuse some (Ceph's 16.2 all, over TLS).
func (s *Store) api(client *http.Client, at endpoint, accessKey, secretKey string) *awss3.Client {
	base := at.url()
	o := awss3.Options{
		BaseEndpoint: &base, Region: s.cfg.Region, HTTPClient: client,
		UsePathStyle: s.cfg.pathStyle(at),
		Credentials:  credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		Retryer:      aws.NopRetryer{},

		RequestChecksumCalculation:                aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:                aws.ResponseChecksumValidationWhenRequired,
		DisableLogOutputChecksumValidationSkipped: true,
		ContinueHeaderThresholdBytes:              -1,
		DisableMultiRegionAccessPoints:            true,
		DisableS3ExpressSessionAuth:               aws.Bool(true),
	}
	if accessKey == "" {
		o.Credentials = aws.AnonymousCredentials{}
	}
	return awss3.New(o)
}

func (c Config) pathStyle(at endpoint) bool {
	host, _, _ := net.SplitHostPort(at.host)
	amazon := strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
	// A certificate for *.host does not cover a bucket with dots.
	return c.PathStyle == "path" || c.PathStyle == "auto" && (!amazon || strings.Contains(c.Bucket, "."))
}
