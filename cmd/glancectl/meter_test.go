package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// asMeter makes the test binary run programs for a meter. The kernel counts what
// a process had in memory before it became another program: a small process in
// between keeps the tests' own memory out of it.
const asMeter = "GLANCECTL_TEST_AS_METER"

// hang is when a program is taken to run for ever. What it may take is measured
// in its CPU time, which does not depend on who else is using the machine.
const hang = 2 * time.Minute

// keptOutput is how much of what a program prints is kept, bytes.
const keptOutput = 64 << 10

// measured is a run of a program, and what it took.
type measured struct {
	Code     int           // -1 = killed
	Out, Err []byte        // the beginnings
	Printed  int64         // bytes on stdout
	CPU      time.Duration // of all its threads, the kernel's work for them included
	Peak     int64         // bytes of memory at once
}

// runMeter runs the programs whose arguments come as JSON on standard input.
func runMeter() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var args []string
		if in.Decode(&args) != nil {
			os.Exit(0)
		}
		out.Encode(measure(args))
	}
}

func measure(args []string) measured {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	stdout, stderr := &beginning{}, &beginning{}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		return measured{Code: -1, Err: []byte(err.Error())}
	}
	st := cmd.ProcessState
	return measured{st.ExitCode(), stdout.kept, stderr.kept, stdout.n, st.UserTime() + st.SystemTime(), st.SysUsage().(*syscall.Rusage).Maxrss << 10}
}

// beginning keeps the first bytes written, and counts all.
type beginning struct {
	kept []byte
	n    int64
}

func (b *beginning) Write(p []byte) (int, error) {
	b.n += int64(len(p))
	b.kept = append(b.kept, p[:min(len(p), keptOutput-len(b.kept))]...)
	return len(p), nil
}

// meter runs programs, one at a time.
type meter struct {
	in  *json.Encoder
	out *json.Decoder
}

func newMeter(t *testing.T) *meter {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asMeter+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	})
	return &meter{json.NewEncoder(in), json.NewDecoder(out)}
}

func (m *meter) run(t *testing.T, args ...string) measured {
	t.Helper()
	var r measured
	if err := m.in.Encode(args); err != nil {
		t.Fatal(err)
	}
	if err := m.out.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// builtProgram builds glancectl as it is installed: without the race detector,
// which takes many times the memory.
func builtProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "glancectl")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", path, "glanced/cmd/glancectl").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}
