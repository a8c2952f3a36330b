package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"glanced/catalog/records"
	"glanced/catalog/records/sqlite"
	"glanced/contrib/testbed"
)

// fatCatalog makes a database of images with as much metadata as they may have now, and
// with as much as they could have before there was a limit on the sum: 80 MiB together,
// more than the daemon may ever hold. It returns how many.
func fatCatalog(t *testing.T, dir string) (images int) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	raw, bare, size := "raw", "bare", int64(4096)
	for _, kind := range []struct {
		images, properties, bytes int
		text                      string
	}{
		{2, 128, 60000, "x"},
		{10, 100, 2500, "\x01"}, // each takes six bytes in JSON
		{250, 10, 25000, "y"},
	} {
		for i := range kind.images {
			name := fmt.Sprintf("fat %s %d", kind.text, i)
			img := records.Image{ID: uuid.NewString(), Name: &name, Status: records.Active, DiskFormat: &raw, ContainerFormat: &bare,
				Visibility: "public", Size: &size, VirtualSize: &size, Properties: map[string]string{}}
			for at := range kind.properties {
				img.Properties[fmt.Sprintf("p%d", at)] = fmt.Sprint(at) + strings.Repeat(kind.text, kind.bytes)
			}
			err := db.Change(t.Context(), "fill", func(tx records.Tx) error { return tx.Insert(t.Context(), img) })
			if err != nil {
				t.Fatal(err)
			}
			images++
		}
	}
	return images
}

// Images that have much metadata are listed, over every door, within the budget.
func TestFatImagesAreListedWithinTheBudget(t *testing.T) {
	testbed.Need(t, "getfattr", "attr")
	dir := t.TempDir()
	images := fatCatalog(t, dir)
	t.Run("HTTP", func(t *testing.T) {
		p := scarceIn(t, dir, false)
		var clients sync.WaitGroup
		for range 3 {
			clients.Go(func() {
				if n, err := p.listAll(); err != nil || n != images {
					t.Errorf("%d of %d images were listed: %v", n, images, err)
				}
			})
		}
		clients.Wait()
		// Those that take nothing of what they asked for.
		for range 40 {
			io.WriteString(p.half("GET /v2/images?limit=1000 HTTP/1.1"), "\r\n")
		}
		time.Sleep(time.Second)
		p.wantWithin(scarce + slack)
	})
	t.Run("NBD", func(t *testing.T) {
		p := scarceIn(t, dir, false)
		var clients sync.WaitGroup
		for range 16 {
			clients.Go(func() {
				if n, err := listExports(filepath.Join(dir, "nbd.sock")); err != nil || n != images {
					t.Errorf("%d of %d exports were listed: %v", n, images, err)
				}
			})
		}
		clients.Wait()
		p.wantWithin(scarce + slack)
	})
	t.Run("FUSE", func(t *testing.T) {
		p := scarceIn(t, dir, true)
		var clients sync.WaitGroup
		for _, command := range []string{"ls -lR mnt", "getfattr -R -h -d mnt/images", "cat mnt/images/*/metadata.json", "ls -lR mnt/images"} {
			clients.Go(func() {
				cmd := exec.Command("sh", "-c", command+" >/dev/null")
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			})
		}
		clients.Wait()
		p.wantWithin(scarce + slack)
	})
}

// heldCatalog makes a database of one held image, and of images that stand on it and have
// as many snapshots as can be addressed. It returns how many.
func heldCatalog(t *testing.T, dir string) int {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	hash, children := "h", 1000 // of 100 KiB each
	held := records.Image{ID: uuid.NewString(), Status: records.PendingDelete, Visibility: "private"}
	child := records.Image{Status: records.Active, Visibility: "private", HashValue: &hash, Parent: &records.Parent{ID: held.ID, HashValue: hash}}
	for i := range 1024 {
		id := fmt.Sprintf("%032d", i)
		child.Snapshots = append(child.Snapshots, records.Snapshot{Name: "s" + id[1:], ID: id})
	}
	err = db.Change(t.Context(), "fill", func(tx records.Tx) error {
		if err := tx.Insert(t.Context(), held); err != nil {
			return err
		}
		for range children {
			child.ID = uuid.NewString()
			if err := tx.Insert(t.Context(), child); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return children
}

// What stands on a held image is shown to administrators within the budget.
func TestChildrenOfAHeldImageAreListedWithinTheBudget(t *testing.T) {
	dir := t.TempDir()
	children := heldCatalog(t, dir)
	p := scarceIn(t, dir, false)
	status, held := p.call("GET", "/admin/held", "", nil)
	if n := strings.Count(fmt.Sprint(held), "status:active"); status != http.StatusOK || n != children {
		t.Errorf("%d: %d of %d are shown", status, n, children)
	}
	p.wantWithin(scarce + slack)
}

// listAll lists all images as a client does that asks for long pages and follows the
// links to the next ones.
func (p *process) listAll() (n int, err error) {
	for path := "/v2/images?limit=1000"; path != ""; {
		resp, err := p.client.Get("http://control" + path)
		if err != nil {
			return n, err
		}
		var page struct {
			Images []json.RawMessage `json:"images"`
			Next   string            `json:"next"`
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return n, fmt.Errorf("%s: %s, %w", path, resp.Status, err)
		}
		n += len(page.Images)
		path = page.Next
	}
	return n, nil
}

// listExports asks for the list of exports as the NBD protocol has it, and counts them.
func listExports(socket string) (n int, err error) {
	const haveOpt, list, server, ack = "IHAVEOPT", 3, 2, 1
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 18)); err != nil {
		return 0, err
	}
	ask := binary.BigEndian.AppendUint32(nil, 3)
	ask = append(ask, haveOpt...)
	ask = binary.BigEndian.AppendUint32(ask, list)
	if _, err := c.Write(binary.BigEndian.AppendUint32(ask, 0)); err != nil {
		return 0, err
	}
	for {
		var head struct {
			Magic             uint64
			Option, Kind, Len uint32
		}
		if err := binary.Read(c, binary.BigEndian, &head); err != nil {
			return n, err
		}
		if _, err := io.CopyN(io.Discard, c, int64(head.Len)); err != nil {
			return n, err
		}
		switch head.Kind {
		case server:
			n++
		case ack:
			return n, nil
		default:
			return n, errors.New("an error reply")
		}
	}
}
