package qcow2_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

// header is the first 104 bytes of an image.
func header(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:104]
}

// crash runs qemu-io commands of which the last one kills it.
func crash(t *testing.T, path string, commands ...string) {
	t.Helper()
	args := []string{"-f", "qcow2"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	cmd := exec.CommandContext(t.Context(), "qemu-io", append(args, path)...)
	cmd.Dir = t.TempDir() // for a core file
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) {
		t.Fatalf("qemu-io did not crash: %v", err)
	}
}

func wantEncrypted(t *testing.T, path string) {
	t.Helper()
	srcs := formattest.OpenFile(t, path)
	info, err := qcow2.Driver().Inspect(t.Context(), srcs)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Encrypted || !errors.Is(info.Refused, formats.ErrEncrypted) {
		t.Errorf("encrypted: %v, refused: %v", info.Encrypted, info.Refused)
	}
	if info.VirtualSize != 1<<20 {
		t.Errorf("virtual size %d", info.VirtualSize)
	}
	if _, err := qcow2.Driver().Open(t.Context(), srcs, formats.Options{}); !errors.Is(err, formats.ErrEncrypted) {
		t.Errorf("Open: %v, want ErrEncrypted", err)
	}
}
