package catalog_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"glanced/contrib/testbed"
)

// A snapshot without an id cannot be told from the active disk.
func TestASnapshotWithoutAnIDIsNotServed(t *testing.T) {
	w := newWorld(t, nil)
	path := filepath.Join(t.TempDir(), "image")
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	testbed.Run(t, "qemu-img", "snapshot", "-c", "kept", path)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if img := w.active(t, "qcow2", "bare", content); len(img.Snapshots) != 1 {
		t.Fatalf("%+v", img.Snapshots)
	}
	table := binary.BigEndian.Uint64(content[64:])
	binary.BigEndian.PutUint16(content[table+12:], 0) // its id's length
	if img := w.active(t, "qcow2", "bare", content); len(img.Snapshots) != 0 {
		t.Errorf("%+v", img.Snapshots)
	}
}
