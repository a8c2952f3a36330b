// Package testbed is what tests stand on: the programs and servers that are not
// ours, and what may be left out where they are missing.
package testbed

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Need skips the test when program is not installed, naming the Debian package
// that has it; where tests may not skip (CI or GLANCED_MUST_RUN is set), it fails.
func Need(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	Unable(t, program+" is missing: install "+pkg)
}

// Unable ends a test that cannot run here, and says why: it is skipped, or fails
// where tests may not skip.
func Unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("GLANCED_MUST_RUN") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Run runs a program, and is its output; the test ends when it fails.
func Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}
