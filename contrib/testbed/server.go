package testbed

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTime is how long a server may take until it answers.
const startTime = 30 * time.Second

// script is the path of a script of this folder.
func script(name string) string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), name)
}

// FreePort is a port of 127.0.0.1 that nobody listens on now.
func FreePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// serve runs a server in the foreground until the test ends, and returns when it
// accepts connections at addr. It ends with this process too, however that ends.
func serve(t testing.TB, addr string, cmd *exec.Cmd) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // Pdeathsig is the thread's, prctl(2): it must live as long
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var how error
	go func() {
		how = <-ended
		close(over)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-over
	})
	if err := await(addr, over); err != nil {
		text, _ := os.ReadFile(log)
		t.Fatalf("%s: %v (%v)\n%s", strings.Join(cmd.Args, " "), err, how, text)
	}
}

// await waits until addr accepts connections, or over is closed.
func await(addr string, over <-chan struct{}) error {
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-over:
			return fmt.Errorf("it ended before it listened on %s", addr)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("nobody listens on %s after %v", addr, startTime)
}
