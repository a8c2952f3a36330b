package qed_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/qed"
)

// made is an image of 6 MiB that qemu-img makes, on a backing file if there is a name.
func made(t testing.TB, backing string) []byte {
	t.Helper()
	testbed.Need(t, "qemu-img", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.qed")
	args := []string{"create", "-q", "-f", "qed", "-o", "cluster_size=32k"}
	if backing != "" {
		args = append(args, "-u", "-b", backing, "-F", "raw")
	}
	testbed.Run(t, "qemu-img", append(args, path, "6M")...)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestIsRecognisedAndRefusedByName(t *testing.T) {
	for _, backing := range []string{"", "base.raw"} {
		image := made(t, backing)
		if !qed.Driver().Probe(image[:formats.ProbeLen]) {
			t.Error("Probe does not recognise it")
		}
		info, err := qed.Driver().Inspect(t.Context(), formattest.Memory(image))
		if err != nil {
			t.Fatal(err)
		}
		if info.Format != "qed" || info.VirtualSize != 6<<20 || info.ClusterSize != 32<<10 {
			t.Errorf("Inspect says %+v", info)
		}
		if !errors.Is(info.Refused, formats.ErrUnsupported) || !strings.Contains(info.Refused.Error(), "qemu-img convert -f qed") {
			t.Errorf("refused: %v", info.Refused)
		}
		var want []formats.Ref
		if backing != "" {
			want = []formats.Ref{{Kind: formats.RefBacking, Name: backing, Format: "raw"}}
		}
		if !slices.Equal(info.Refs, want) {
			t.Errorf("references %+v, want %+v", info.Refs, want)
		}
		formattest.Refuse(t, qed.Driver(), image, formats.ErrUnsupported)
	}
}

func TestOtherContentIsNotQED(t *testing.T) {
	for _, image := range [][]byte{nil, []byte("QED"), []byte("QFI\xfb"), make([]byte, 1<<20)} {
		formattest.Refuse(t, qed.Driver(), image, formats.ErrFormat)
	}
}

// Whatever the fields say, nothing is allocated for them and no name is made up.
func TestAHostileHeaderIsRefusedAllTheSame(t *testing.T) {
	for n := range 80 {
		formattest.Refuse(t, qed.Driver(), append([]byte("QED\x00"), bytes.Repeat([]byte{0xff}, n)...), formats.ErrUnsupported)
	}
}

func FuzzOpenQED(f *testing.F) {
	formattest.FuzzOpen(f, qed.Driver(), append(hostile.Seeds("qed"), []byte("QED\x00"), append([]byte("QED\x00"), bytes.Repeat([]byte{1}, 100)...))...)
}
