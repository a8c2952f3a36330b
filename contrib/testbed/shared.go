package testbed

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// shared are the servers that start slowly: one of each for all tests of a program.
var shared struct {
	mu      sync.Mutex
	used    bool // Main runs the tests
	servers map[string]*sharedServer
}

type sharedServer struct {
	dir   string
	ports []string
	run   func() error // starts it
	halt  func()       // ends it; what it keeps stays
	stop  func()       // ends it for good
	err   error
}

// Main runs the tests of a package that uses servers which are shared by its tests, and
// ends these: func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }.
func Main(m *testing.M) int {
	shared.mu.Lock()
	shared.used = true
	shared.mu.Unlock()
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for _, s := range shared.servers {
		if s.stop != nil {
			s.stop()
		}
	}
	return code
}

// share is the server called name, which is started if none is yet: start makes the
// command of it, which serves a folder on so many ports of 127.0.0.1. It is up when it
// listens on the first one, or makes the file called ready in the folder, where that is
// not "". Only a port that somebody else took meanwhile makes a start worth repeating.
func share(t testing.TB, name string, ports int, ready string, start func(dir string, ports []string) *exec.Cmd) *sharedServer {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.used {
		t.Fatal("the package's TestMain does not call testbed.Main")
	}
	s := shared.servers[name]
	if s == nil {
		s = &sharedServer{}
		for range 3 {
			if s.err = s.start(t, ports, ready, start); s.err == nil {
				break
			}
		}
		if shared.servers == nil {
			shared.servers = map[string]*sharedServer{}
		}
		shared.servers[name] = s
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s
}

func (s *sharedServer) start(t testing.TB, ports int, ready string, start func(string, []string) *exec.Cmd) error {
	t.Helper()
	dir, err := os.MkdirTemp("", "testbed-")
	if err != nil {
		return err
	}
	s.ports = nil
	for range ports {
		s.ports = append(s.ports, FreePort(t))
	}
	s.dir = dir
	up := listens("127.0.0.1:" + s.ports[0])
	if ready != "" {
		up = exists(filepath.Join(dir, ready))
	}
	s.run = func() (err error) {
		s.halt, err = launch(start(dir, s.ports), filepath.Join(dir, "out"), up)
		return err
	}
	if err := s.run(); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.stop = func() {
		s.halt()
		os.RemoveAll(dir)
	}
	return nil
}

// pause ends the server until resume is called, or the test ends. No other test may use
// it meanwhile.
func (s *sharedServer) pause(t testing.TB) (resume func()) {
	t.Helper()
	s.halt()
	resume = sync.OnceFunc(func() {
		if err := s.run(); err != nil {
			s.halt = func() {}
			t.Error(err)
		}
	})
	t.Cleanup(resume)
	return resume
}
