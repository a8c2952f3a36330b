package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The S3 server's keys and bucket.
const (
	accessKey, secretKey = "benchkey", "bench/secret+key/of/forty/characters===="
	bucket               = "images"
)

// gateway is an S3 server (versitygw) over a folder.
type gateway struct {
	*server
	addr string // host:port
}

func startGateway(ctx context.Context, dir string) (*gateway, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gateway{addr: l.Addr().String()}
	l.Close()
	_, port, _ := net.SplitHostPort(g.addr)
	g.server = newServer(ctx, "contrib/testbed/versitygw.sh", "run", dir, port)
	g.Env = append(os.Environ(), "GW_ACCESS_KEY="+accessKey, "GW_SECRET_KEY="+secretKey)
	if err := g.Start(); err != nil {
		return nil, fmt.Errorf("start versitygw: %w", err)
	}
	for range 200 {
		c, err := net.Dial("tcp", g.addr)
		if err == nil {
			c.Close()
			if err := g.open(ctx); err != nil {
				g.stop()
				return nil, err
			}
			return g, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	g.stop()
	return nil, fmt.Errorf("versitygw does not answer at %s within 10 s", g.addr)
}

// store is the configuration of the store that keeps images there, reached at addr.
func (g *gateway) store(addr string) string {
	return fmt.Sprintf(`[[stores]]
id = "far"
type = "s3"
default = true
endpoint = "http://%s"
bucket = %q
path_style = "path"
access_key = %q
secret_key = %q
`, addr, bucket, accessKey, secretKey)
}

// open makes the bucket, and lets anybody read what is in it, as the other contenders
// sign nothing.
func (g *gateway) open(ctx context.Context) error {
	endpoint, name := "http://"+g.addr, bucket
	client := s3.New(s3.Options{BaseEndpoint: &endpoint, Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")})
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		return fmt.Errorf("make a bucket: %w", err)
	}
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::` + bucket + `/*"]}]}`
	if _, err := client.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &name, Policy: &policy}); err != nil {
		return fmt.Errorf("open a bucket to all: %w", err)
	}
	return nil
}

// url is where anybody may get an object, reached at addr.
func url(addr, key string) string { return "http://" + addr + "/" + bucket + "/" + key }
