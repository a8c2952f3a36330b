package swift

import (
	"errors"
	"strings"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/contrib/testbed"
)

// TestKeystone has the tokens of Keystone's third version, and the object store of its
// catalog; objects are in segments.
func TestKeystone(t *testing.T) {
	srv := testbed.SwiftKeystone(t)
	t.Run("what Glance wrote", func(t *testing.T) {
		srv := srv.NewContainer(t)
		s := mustOpen(t, srv, config(srv))
		defer s.Close()
		content := backendtest.Noise(1, 1<<20)
		auth := strings.TrimPrefix(srv.AuthURL, "http://")
		srv.PutSegments(t, "", imageID, content, 100_000)
		loc := wantRead(t, s, "swift+http://service%3Aglance:old@"+auth+"/"+srv.Container+"/"+imageID, content)
		wantRead(t, s, "swift+http://service%3Aswift:swift-secret@"+auth+"/"+srv.Container+"/"+imageID, content)
		_, err := s.Stat(t.Context(), backends.Location{Store: "swift", URL: "swift+http://service%3Aswift:wrong-key@" + auth + "/" + srv.Container + "/" + imageID, Size: -1})
		if !errors.Is(err, backends.ErrDenied) || strings.Contains(err.Error(), "wrong-key") {
			t.Errorf("a wrong key: %v", err)
		}
		if err := s.Delete(t.Context(), loc); err != nil || len(srv.List(t)) > 0 {
			t.Errorf("delete: %v; left: %v", err, srv.List(t))
		}
	})
	for name, change := range map[string]func(*Config){
		"a region that is not there":     func(c *Config) { c.Region = "Nowhere" },
		"an interface that is not there": func(c *Config) { c.EndpointType = "internal" },
	} {
		cfg := config(srv)
		change(&cfg)
		s := mustOpen(t, srv, cfg)
		if _, err := s.Usage(t.Context()); !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), "check region and endpoint_type") {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
	suite(t, srv, func(c *Config) { c.LargeObjectSize, c.ChunkSize, c.Region = 50_000, 1<<20, "RegionOne" })
}
