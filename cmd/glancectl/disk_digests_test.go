package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/formats/container"
	"glanced/formats/formattest/hostile"
)

// verdict is what disk info says of an image's safety.
type verdict struct {
	Safe    bool
	Refused string
}

// eachDigestCommand runs every command that reads a disk on file; converted is
// where disk convert would have put it.
func eachDigestCommand(t *testing.T, file string, run func(name string, r result, converted string)) {
	t.Helper()
	for _, args := range [][]string{{"map"}, {"bench"}, {"bench", "--random", "3"}, {"check"}} {
		run(args[0], glancectl(t, "", append(append([]string{"disk"}, args...), file, "--progress")...), "")
	}
	for _, to := range []string{"raw", "qcow2", "vmdk"} {
		out := filepath.Join(t.TempDir(), "out")
		run("convert", glancectl(t, "", "disk", "convert", file, out, "--to", to, "--progress"), out)
		run("convert to a pipe", glancectl(t, "", "disk", "convert", file, "-", "--to", to, "--progress"), "")
	}
}

// refusedBy fails unless a command refused an image and says why. What disk check
// found stands on its standard output too; the others print nothing there.
func refusedBy(t *testing.T, command string, r result, says string) {
	t.Helper()
	if command != "check" {
		r.fails(exitFailed, says)
	} else if r.code != exitFailed || !strings.Contains(r.err, says) {
		t.Errorf("disk check: exit code %d, said %q", r.code, r.err)
	}
}

// The daemon answers 415 to these.
func TestAnApplianceThatItsManifestContradictsIsRefusedByEveryCommand(t *testing.T) {
	spoiled := applianceOf(t, true, streamOf(t, guestDisk(t)))
	spoil(t, spoiled, func(b []byte) { b[bytes.LastIndex(b, []byte("KDMV"))+600] ^= 0x20 })
	files := map[string]string{"a changed disk": spoiled}
	for name, archive := range hostile.ArchivesWithWrongManifests() {
		files[name] = writeFile(t, "vm.ova", archive)
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			r := glancectl(t, "", "disk", "info", file, "-f", "json", "--progress")
			if v := decode[verdict](t, r.ok()); v.Safe || !strings.Contains(v.Refused, container.ErrDigest.Error()) || !strings.Contains(r.err, "digests") {
				t.Errorf("info: %+v, and on stderr %q", v, r.err)
			}
			eachDigestCommand(t, file, func(command string, r result, out string) {
				refusedBy(t, command, r, container.ErrDigest.Error())
				if !strings.Contains(r.err, "digests") {
					t.Errorf("%s shows no progress: %q", command, r.err)
				}
				if out != "" {
					onlyFile(t, out, false)
				}
			})
			// What is said to be something else is not looked into.
			glancectl(t, "", "disk", "info", file, "--format", "raw").ok()
		})
	}
}

// A manifest that nobody can make sense of contradicts nothing, and the daemon takes
// the archive in; that something is wrong with it is for disk check to say.
func TestAManifestThatSaysNothingRefusesNothing(t *testing.T) {
	file := applianceOf(t, true, streamOf(t, guestDisk(t)))
	spoil(t, file, func(b []byte) { copy(b[bytes.Index(b, []byte("SHA256(")):], "SHA255(") })
	if v := decode[verdict](t, glancectl(t, "", "disk", "info", file, "-f", "json").ok()); !v.Safe {
		t.Errorf("info: %+v", v)
	}
	eachDigestCommand(t, file, func(command string, r result, _ string) {
		if command == "check" {
			refusedBy(t, command, r, "manifest")
		} else {
			r.ok()
		}
	})
}

func TestAnApplianceWithoutAManifestIsNotReadForOne(t *testing.T) {
	guest := guestDisk(t)
	for name, c := range map[string]struct {
		file  string
		shows bool
	}{
		"with a manifest":    {applianceOf(t, true, streamOf(t, guest)), true},
		"without a manifest": {applianceOf(t, false, streamOf(t, guest)), false},
		"without an archive": {streamOf(t, guest), false},
	} {
		t.Run(name, func(t *testing.T) {
			eachDigestCommand(t, c.file, func(command string, r result, out string) {
				r.ok()
				if shows := strings.Contains(r.err, "digests"); shows != c.shows && command != "check" {
					t.Errorf("%s compares digests: %v", command, shows)
				}
				if out != "" {
					if st, err := os.Stat(out); err != nil || st.Size() == 0 {
						t.Errorf("%s wrote %v, %v", command, st, err)
					}
				}
			})
		})
	}
}

func TestTheHelpSaysThatTheArchiveIsReadWhole(t *testing.T) {
	for _, command := range []string{"info", "map", "bench", "convert"} {
		if help := glancectl(t, "", "disk", command, "--help").ok(); !strings.Contains(help, "read whole") {
			t.Errorf("disk %s --help:\n%s", command, help)
		}
	}
}
