package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ncw/swift/v2"
)

// SwiftServer is a Swift that runs, and a container of its own for the test.
type SwiftServer struct {
	AuthURL   string // http://host:port/…
	User, Key string // of tempauth: account:user
	Project   string // "" with tempauth
	Container string // there, and empty

	client *swift.Connection
}

// Another user of the same account of tempauth, and one that may read and write all
// accounts.
const (
	SwiftOther, SwiftOtherKey = "test:other", "a/key:with@all"
	SwiftAdmin, SwiftAdminKey = "admin:admin", "admin"
)

// Swift is a Swift whose users are tempauth's, one for all tests of a program: see Main.
func Swift(t testing.TB) SwiftServer {
	t.Helper()
	needSwift(t)
	ports := share(t, "swift", 5, "", func(dir string, ports []string) *exec.Cmd {
		return exec.Command("bash", append([]string{script("swift.sh"), "run", dir}, ports...)...)
	}).ports
	srv := SwiftServer{AuthURL: "http://127.0.0.1:" + ports[0] + "/auth/v1.0", User: "test:tester", Key: "testing"}
	return srv.NewContainer(t)
}

// SwiftKeystone is Swift with the users of a Keystone. It takes half a minute: tests that
// need it run where GLANCED_KEYSTONE is set (make test-full).
func SwiftKeystone(t testing.TB) SwiftServer {
	t.Helper()
	if os.Getenv("GLANCED_KEYSTONE") == "" {
		t.Skip("GLANCED_KEYSTONE is not set")
	}
	needSwift(t)
	needKeystone(t, "swift")
	ports := share(t, "swift with keystone", 6, "", func(dir string, ports []string) *exec.Cmd {
		return exec.Command("bash", append([]string{script("swift.sh"), "run", dir}, ports...)...)
	}).ports
	srv := SwiftServer{AuthURL: "http://127.0.0.1:" + ports[5] + "/v3", User: "glance", Key: "glance-secret", Project: "service"}
	return srv.NewContainer(t)
}

func needSwift(t testing.TB) {
	t.Helper()
	for program, pkg := range map[string]string{"swift-proxy-server": "swift-proxy", "swift-account-server": "swift-account",
		"swift-container-server": "swift-container", "swift-object-server": "swift-object", "memcached": "memcached"} {
		if _, err := exec.LookPath(program); err != nil {
			UnableFor(t, "swift", program+" is missing: install "+pkg)
		}
	}
}

// NewContainer is the same server with one more container.
func (srv SwiftServer) NewContainer(t testing.TB) SwiftServer {
	t.Helper()
	srv.Container = "testbed-" + strings.ToLower(rand.Text()[:12])
	srv.connect()
	srv.MakeContainer(t, srv.Container)
	return srv
}

func (srv *SwiftServer) connect() {
	srv.client = &swift.Connection{AuthUrl: srv.AuthURL, UserName: srv.User, ApiKey: srv.Key, Tenant: srv.Project, Retries: 3}
	if srv.Project != "" {
		srv.client.DomainId = "default"
	}
}

// MakeContainer makes a container of any name.
func (srv SwiftServer) MakeContainer(t testing.TB, name string) {
	t.Helper()
	if err := srv.client.ContainerCreate(t.Context(), name, nil); err != nil {
		t.Fatalf("make a container: %v", err)
	}
}

// StorageURL is where the user's account lies.
func (srv SwiftServer) StorageURL(t testing.TB) string {
	t.Helper()
	address, err := srv.client.GetStorageUrl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Put puts an object into a container, "" = the test's own, or in the place of one that
// is there; headers are the request's.
func (srv SwiftServer) Put(t testing.TB, container, name string, content []byte, headers map[string]string) {
	t.Helper()
	if container == "" {
		container = srv.Container
	}
	// Also when the test has ended.
	ctx := context.WithoutCancel(t.Context())
	if _, err := srv.client.ObjectPut(ctx, container, name, bytes.NewReader(content), true, "", "application/octet-stream", headers); err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
}

// PutSegments puts a dynamic large object as Glance lays it out (glance_store,
// _drivers/swift/store.py): segments <name>-00001 and on beside the manifest.
func (srv SwiftServer) PutSegments(t testing.TB, container, name string, content []byte, segment int) {
	t.Helper()
	if container == "" {
		container = srv.Container
	}
	for i := 1; len(content) > 0; i++ {
		n := min(segment, len(content))
		srv.Put(t, container, fmt.Sprintf("%s-%05d", name, i), content[:n], nil)
		content = content[n:]
	}
	srv.Put(t, container, name, nil, map[string]string{"X-Object-Manifest": container + "/" + name + "-"})
}

// Manifest is where the segments of a dynamic large object lie, container/prefix; "" for
// any other object.
func (srv SwiftServer) Manifest(t testing.TB, name string) string {
	t.Helper()
	_, headers, err := srv.client.Object(t.Context(), srv.Container, name)
	if err != nil {
		t.Fatal(err)
	}
	return headers["X-Object-Manifest"]
}

// PutManifest puts a static large object: manifest is its list of segments, in JSON.
func (srv SwiftServer) PutManifest(t testing.TB, name string, manifest []byte) {
	t.Helper()
	_, _, err := srv.client.Call(t.Context(), srv.StorageURL(t), swift.RequestOpts{Container: srv.Container, ObjectName: name, Operation: "PUT",
		Parameters: url.Values{"multipart-manifest": {"put"}}, Body: bytes.NewReader(manifest), NoResponse: true, ErrorMap: swift.ContainerErrorMap})
	if err != nil {
		t.Fatalf("put the manifest %s: %v", name, err)
	}
}

// SetQuota bounds what the container holds, bytes.
func (srv SwiftServer) SetQuota(t testing.TB, size int64) {
	t.Helper()
	if err := srv.client.ContainerUpdate(t.Context(), srv.Container, swift.Headers{"X-Container-Meta-Quota-Bytes": strconv.FormatInt(size, 10)}); err != nil {
		t.Fatalf("set a quota: %v", err)
	}
}

// Remove takes an object of the test's container away, with nothing else.
func (srv SwiftServer) Remove(t testing.TB, name string) {
	t.Helper()
	srv.RemoveFrom(t, "", name)
}

// RemoveFrom is Remove from a container, "" = the test's own.
func (srv SwiftServer) RemoveFrom(t testing.TB, container, name string) {
	t.Helper()
	if container == "" {
		container = srv.Container
	}
	if err := srv.client.ObjectDelete(context.WithoutCancel(t.Context()), container, name); err != nil {
		t.Fatalf("remove %s: %v", name, err)
	}
}

// List names what is in the container, segments too.
func (srv SwiftServer) List(t testing.TB) []string {
	t.Helper()
	return srv.ListIn(t, srv.Container)
}

// Has tells whether an object of the container is there: a listing may be late.
func (srv SwiftServer) Has(t testing.TB, name string) bool {
	t.Helper()
	_, _, err := srv.client.Object(context.WithoutCancel(t.Context()), srv.Container, name)
	if err != nil && !errors.Is(err, swift.ObjectNotFound) {
		t.Fatalf("look at %s: %v", name, err)
	}
	return err == nil
}

// ListIn is List of another container.
func (srv SwiftServer) ListIn(t testing.TB, container string) []string {
	t.Helper()
	names, err := srv.client.ObjectNamesAll(context.WithoutCancel(t.Context()), container, nil)
	if err != nil {
		t.Fatalf("list container %s: %v", container, err)
	}
	return names
}

// Behind is the same server as a proxy's clients see it: tokens are asked for by way of
// it, and tempauth says that the object store is where it was asked. Requests are named
// by their method and what they are about: "PUT object", "GET segment", "GET container";
// or auth.
func (srv SwiftServer) Behind(t testing.TB) (*Proxy, SwiftServer) {
	t.Helper()
	p := NewProxy(t, Passing(t, srv.AuthURL), swiftCall)
	there, err := url.Parse(srv.AuthURL)
	if err != nil {
		t.Fatal(err)
	}
	srv.AuthURL = p.URL + there.Path
	return p, srv
}

func swiftCall(r *http.Request) string {
	elements := strings.SplitN(strings.Trim(r.URL.Path, "/"), "/", 4)
	switch {
	case elements[0] == "auth":
		return "auth"
	case len(elements) < 4:
		return r.Method + " container"
	case strings.Contains(elements[3], "/"):
		return r.Method + " segment"
	}
	return r.Method + " object"
}
