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

const (
	startTime = 2 * time.Minute  // a server may take until it is up
	stopTime  = 20 * time.Second // and until it has ended
)

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

// listens tells whether a server accepts connections at addr.
func listens(addr string) func() bool {
	return func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
}

// exists tells whether a file is there.
func exists(file string) func() bool {
	return func() bool {
		_, err := os.Stat(file)
		return err == nil
	}
}

// serve runs a server in the foreground until the test ends, and returns when it is
// up.
func serve(t testing.TB, cmd *exec.Cmd, up func() bool) {
	t.Helper()
	stop, err := launch(cmd, filepath.Join(t.TempDir(), "log"), up)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// launch runs a server in the foreground until stop, and returns when it is up. It is
// told to end with this process too, however that ends. What it says goes to the file
// called log, and into the error.
func launch(cmd *exec.Cmd, log string, up func() bool) (stop func(), err error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
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
		return nil, err
	}
	over := make(chan struct{})
	go func() {
		<-ended
		close(over)
	}()
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-over:
		case <-time.After(stopTime):
			cmd.Process.Kill()
			<-over
		}
	}
	if why := await(up, over); why != "" {
		stop()
		text, _ := os.ReadFile(log)
		return nil, fmt.Errorf("%s: %s\n%s", strings.Join(cmd.Args, " "), why, text)
	}
	return stop, nil
}

// await waits until a server is up, or over is closed, and says why it is not.
func await(up func() bool, over <-chan struct{}) string {
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		if up() {
			return ""
		}
		select {
		case <-over:
			return "it ended before it was up"
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Sprintf("it is not up after %v", startTime)
}
