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
// that has it; where tests may not skip, it fails.
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
	UnableFor(t, "", why)
}

// UnableFor is Unable of a test that a server is needed for, such as s3.
func UnableFor(t testing.TB, server, why string) {
	t.Helper()
	if mustRun(os.Getenv("GLANCED_MUST_RUN"), os.Getenv("CI") != "", server) {
		t.Fatal(why)
	}
	t.Skip(why)
}

// mustRun tells whether a test may not skip. setting is GLANCED_MUST_RUN: a list of
// servers, such as s3,rbd, whose tests may not; or 1, for all tests, which is what a
// CI does that says nothing. server is "" for a test that needs none.
func mustRun(setting string, ci bool, server string) bool {
	if setting == "" {
		return ci
	}
	return named(setting, "1") || server != "" && named(setting, server)
}

// named tells whether a list has a name.
func named(list, name string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(one) == name {
			return true
		}
	}
	return false
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
