package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// S3Server is an S3 server that runs, and a bucket of its own for the test.
type S3Server struct {
	Endpoint             string // http(s)://host:port
	Region               string
	AccessKey, SecretKey string
	CAFile               string // whom to trust, PEM; "" where Endpoint is http
	Bucket               string // there, and empty

	client *s3.Client
}

// s3Secret has what makes a secret hard to handle: Glance writes it into its locations
// as it is.
const s3Secret = "testbed/secret+key/of/forty/characters=="

// S3 starts an S3 server (versitygw) that ends with the test.
func S3(t testing.TB) S3Server {
	t.Helper()
	return versitygw(t, Certificate{})
}

// S3TLS is S3 over TLS, by an authority of its own. Buckets are also hosts,
// <bucket>.s3.localhost.
func S3TLS(t testing.TB) S3Server {
	t.Helper()
	return versitygw(t, Certify(t, "*.s3.localhost"))
}

func versitygw(t testing.TB, c Certificate) S3Server {
	t.Helper()
	if _, err := os.Stat(versitygwPath()); err != nil {
		UnableFor(t, "s3", "versitygw is missing: run make test-deps")
	}
	data, port := t.TempDir(), FreePort(t)
	srv := S3Server{Endpoint: "http://127.0.0.1:" + port, Region: "us-east-1", AccessKey: "testbedkey", SecretKey: s3Secret}
	cmd := exec.Command("bash", script("versitygw.sh"), "run", data, port)
	cmd.Env = append(os.Environ(), "GW_ACCESS_KEY="+srv.AccessKey, "GW_SECRET_KEY="+srv.SecretKey)
	if c != (Certificate{}) {
		srv.Endpoint, srv.CAFile = "https://127.0.0.1:"+port, c.CA
		cmd.Env = append(cmd.Env, "GW_CERT="+c.Cert, "GW_KEY="+c.Key, "GW_DOMAIN=s3.localhost")
	}
	serve(t, cmd, listens("127.0.0.1:"+port))
	return srv.withBucket(t)
}

// versitygwPath is where versitygw.sh installs it.
func versitygwPath() string {
	out, err := exec.Command("bash", script("versitygw.sh"), "path").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// withBucket is the same server with a new bucket.
func (srv S3Server) withBucket(t testing.TB) S3Server {
	t.Helper()
	srv.Bucket = "testbed-" + strings.ToLower(rand.Text()[:12])
	roots := x509.NewCertPool()
	if srv.CAFile != "" {
		text, err := os.ReadFile(filepath.Clean(srv.CAFile))
		if err != nil || !roots.AppendCertsFromPEM(text) {
			t.Fatalf("%s: %v, or no certificate", srv.CAFile, err)
		}
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	srv.client = s3.New(s3.Options{
		BaseEndpoint: &srv.Endpoint, Region: srv.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
		HTTPClient:  &http.Client{Transport: transport},

		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
	if _, err := srv.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &srv.Bucket}); err != nil {
		t.Fatalf("make a bucket on %s: %v", srv.Endpoint, err)
	}
	return srv
}

// NewBucket is the same server with one more bucket.
func (srv S3Server) NewBucket(t testing.TB) S3Server {
	t.Helper()
	return srv.withBucket(t)
}

// Put puts an object into the bucket, or in the place of one that is there.
func (srv S3Server) Put(t testing.TB, key string, content []byte) {
	t.Helper()
	if _, err := srv.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &srv.Bucket, Key: &key, Body: bytes.NewReader(content)}); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

// PutParts is Put by a multipart upload whose parts are partLen bytes long, 5 MiB at
// least, the last one excepted.
func (srv S3Server) PutParts(t testing.TB, key string, content []byte, partLen int) {
	t.Helper()
	if err := srv.putParts(t.Context(), key, content, partLen); err != nil {
		t.Fatalf("put %s in parts: %v", key, err)
	}
}

// List names what is in the bucket: objects, and uploads that were neither completed
// nor aborted.
func (srv S3Server) List(t testing.TB) []string {
	t.Helper()
	// Also when the test has ended.
	names, err := srv.list(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatalf("list bucket %s: %v", srv.Bucket, err)
	}
	return names
}

func (srv S3Server) list(ctx context.Context) (names []string, err error) {
	objects := s3.NewListObjectsV2Paginator(srv.client, &s3.ListObjectsV2Input{Bucket: &srv.Bucket})
	for objects.HasMorePages() {
		page, err := objects.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			names = append(names, aws.ToString(o.Key))
		}
	}
	uploads, err := srv.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &srv.Bucket})
	if err != nil {
		return nil, err
	}
	if aws.ToBool(uploads.IsTruncated) {
		return nil, errors.New("more than a thousand uploads are open")
	}
	for _, u := range uploads.Uploads {
		names = append(names, "upload "+aws.ToString(u.UploadId)+" of "+aws.ToString(u.Key))
	}
	return names, nil
}

// Parts is how many parts have arrived of the uploads that are open.
func (srv S3Server) Parts(t testing.TB) (n int) {
	t.Helper()
	uploads, err := srv.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &srv.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range uploads.Uploads {
		parts, err := srv.client.ListParts(t.Context(), &s3.ListPartsInput{Bucket: &srv.Bucket, Key: u.Key, UploadId: u.UploadId})
		if err != nil {
			t.Fatal(err)
		}
		n += len(parts.Parts)
	}
	return n
}

func (srv S3Server) putParts(ctx context.Context, key string, content []byte, partLen int) error {
	made, err := srv.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &srv.Bucket, Key: &key})
	if err != nil {
		return err
	}
	var parts []types.CompletedPart
	for len(content) > 0 {
		n := min(partLen, len(content))
		number := int32(len(parts) + 1)
		sent, err := srv.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: &srv.Bucket, Key: &key, UploadId: made.UploadId,
			PartNumber: &number, Body: bytes.NewReader(content[:n])})
		if err != nil {
			return err
		}
		parts = append(parts, types.CompletedPart{ETag: sent.ETag, PartNumber: &number})
		content = content[n:]
	}
	_, err = srv.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &srv.Bucket, Key: &key, UploadId: made.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	return err
}

// Delete removes an object.
func (srv S3Server) Delete(t testing.TB, key string) {
	t.Helper()
	if _, err := srv.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &srv.Bucket, Key: &key}); err != nil {
		t.Fatalf("delete %s: %v", key, err)
	}
}

// Behind is the same server as a proxy's clients see it. Requests are named as S3's
// API does: GetObject, UploadPart and so on; those of a bucket by their method.
func (srv S3Server) Behind(t testing.TB) (*Proxy, S3Server) {
	t.Helper()
	p := NewProxy(t, Passing(t, srv.Endpoint), s3Call)
	srv.Endpoint = p.URL
	return p, srv
}

func s3Call(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0:
		return r.Method + " bucket"
	case r.Method == "POST" && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == "POST":
		return "CompleteMultipartUpload"
	case r.Method == "PUT" && q.Has("partNumber"):
		return "UploadPart"
	case r.Method == "PUT":
		return "PutObject"
	case r.Method == "DELETE" && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == "DELETE":
		return "DeleteObject"
	case r.Method == "GET" && q.Has("uploadId"):
		return "ListParts"
	case r.Method == "GET":
		return "GetObject"
	}
	return "HeadObject"
}
