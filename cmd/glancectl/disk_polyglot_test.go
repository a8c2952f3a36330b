package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/formats/formattest/hostile"
)

// An image of two formats is refused where its format is to be found out, and told to
// be unsafe where it was said, for the daemon refuses its upload. Whoever says what it
// is can read it as that.
func TestInfoTellsOfASecondFormat(t *testing.T) {
	harmless := 0
	for _, p := range hostile.Pairs() {
		t.Run(p.Declared+" "+p.Name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, p.Bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			if p.Harmless {
				harmless++
				for _, args := range [][]string{nil, {"--format", p.Declared}} {
					if v := decode[verdict](t, glancectl(t, "", append([]string{"disk", "info", file, "-f", "json"}, args...)...).ok()); !v.Safe {
						t.Errorf("%q: %+v", args, v)
					}
				}
				return
			}
			glancectl(t, "", "disk", "info", file).fails(exitFailed, p.Declared, p.Also, "at once", "--format")
			r := glancectl(t, "", "disk", "info", file, "--format", p.Declared, "-f", "json")
			if r.code == exitDone { // else the second sign spoils its header
				if v := decode[verdict](t, r.out); v.Safe || !strings.Contains(v.Refused, "at once") || !strings.Contains(v.Refused, p.Also) {
					t.Errorf("with --format: %+v", v)
				}
			} else if p.Declared != "vhd" && p.Declared != "ploop" {
				t.Errorf("with --format: exit code %d, %s", r.code, r.err)
			}
			if v := decode[verdict](t, glancectl(t, "", "disk", "info", file, "--format", "raw", "-f", "json").ok()); !v.Safe {
				t.Errorf("as raw: %+v", v)
			}
			if p.Declared == "qcow2" && p.Also != "vdi" { // of which the place is the snapshots'
				out := filepath.Join(t.TempDir(), "out")
				glancectl(t, "", "disk", "convert", file, out, "--format", "qcow2").ok()
			}
		})
	}
	if harmless == 0 {
		t.Error("no pair is harmless")
	}
}
