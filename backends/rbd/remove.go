//go:build ceph

package rbd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
)

// Delete implements backends.Store, as Glance does: the snapshot is unprotected and
// removed, then the image. An image that somebody has open to write, one that has other
// snapshots and one whose snapshot was cloned are ErrInUse, and nothing is removed then. A
// deletion that was cut off may be repeated.
func (s *Store) Delete(ctx context.Context, loc backends.Location) error {
	return s.wrap("delete an object of", s.delete(ctx, loc))
}

func (s *Store) delete(ctx context.Context, loc backends.Location) error {
	if err := s.writable(); err != nil {
		return err
	}
	l, err := s.locate(loc)
	if err != nil {
		return err
	}
	_, err = change(ctx, s, l.image, func(ses *session) (struct{}, error) {
		if err := l.in(ses); err != nil {
			return struct{}{}, err
		}
		id, err := s.removable(ses, l, loc)
		if err == nil {
			err = removeSnapshots(ses, id)
		}
		if err == nil {
			err = ses.missing(s.cfg.Pool, removeImage(ses, l.image, id))
		}
		return struct{}{}, err
	})
	return err
}

// removeImage removes the image called name. The library may say that it was not there
// where it could not remove it: so the header of the image with this id decides, and its
// names stay as long as it is there.
func removeImage(ses *session, name, id string) error {
	err := explain("remove the image", librbd.RemoveImage(ses.ioctx, name))
	if !is(err, syscall.ENOENT) {
		return err
	}
	if there := (source{id: id}).there(ses); !is(there, syscall.ENOENT) {
		return errors.Join(fmt.Errorf("%w: the image is still there after it was removed", backends.ErrUnavailable), there)
	}
	return err
}

// removable is the id of the image at a location, which is the recorded one and which
// nobody uses. It makes calls.
func (s *Store) removable(ses *session, l location, loc backends.Location) (id string, err error) {
	img, err := librbd.OpenImageReadOnly(ses.ioctx, l.image, librbd.NoSnapshot)
	if err != nil {
		return "", ses.missing(s.cfg.Pool, explain("open "+l.image, err))
	}
	defer img.Close()
	o, err := describe(img, "")
	if err != nil {
		return "", explain("look at "+l.image, err)
	}
	snaps, err := img.GetSnapshotNames()
	if err != nil {
		return "", explain("list the image's snapshots", err)
	}
	found := false
	var others []string
	for _, snap := range snaps {
		if l.snap != "" && snap.Name == l.snap {
			o.snap, o.snapID, o.size, found = snap.Name, snap.Id, int64(snap.Size), true
		} else {
			others = append(others, fmt.Sprintf("%.100q", snap.Name))
		}
	}
	// One whose snapshot is gone is what a deletion that was cut off leaves.
	if begun := l.snap != "" && !found; !begun || loc.Version != "" && !strings.HasPrefix(loc.Version, o.id+"@") {
		if err := loc.Check(o.size, o.version()); err != nil {
			return "", err
		}
	}
	if len(others) > 0 {
		return "", fmt.Errorf("%w: it has other snapshots: %s", backends.ErrInUse, strings.Join(others[:min(len(others), 5)], ", "))
	}
	if n, err := watchers(img); err != nil {
		return "", err
	} else if len(n) > 0 {
		return "", fmt.Errorf("%w: %s has it open", backends.ErrInUse, n[0].Addr)
	}
	return o.id, nil
}

func watchers(img *librbd.Image) ([]librbd.ImageWatcher, error) {
	n, err := img.ListWatchers()
	return n, explain("ask who has the image open", err)
}

// removeSnapshots removes the snapshots of the image with an id, unless one has clones. An
// image that is not there has none. It makes calls.
func removeSnapshots(ses *session, id string) error {
	img, err := librbd.OpenImageById(ses.ioctx, id, librbd.NoSnapshot)
	if is(err, syscall.ENOENT) {
		return nil
	} else if err != nil {
		return explain("open the image", err)
	}
	defer img.Close()
	snaps, err := img.GetSnapshotNames()
	if err != nil {
		return explain("list the image's snapshots", err)
	}
	for _, snap := range snaps {
		if err := removeSnapshot(img, snap.Name); err != nil {
			return err
		}
	}
	return nil
}

func removeSnapshot(img *librbd.Image, name string) error {
	if err := img.SetSnapshot(name); err != nil {
		return explain("look at the snapshot", err)
	}
	clones, err := img.ListChildrenAttributes()
	if err != nil {
		return explain("list the snapshot's clones", err)
	}
	if len(clones) > 0 {
		return fmt.Errorf("%w: it has %d clones, such as %.100q in pool %.100q", backends.ErrInUse, len(clones), clones[0].ImageName, clones[0].PoolName)
	}
	if err := img.SetSnapshot(librbd.NoSnapshot); err != nil {
		return explain("look at the image", err)
	}
	snap := img.GetSnapshot(name)
	protected, err := snap.IsProtected()
	if err == nil && protected {
		err = snap.Unprotect()
	}
	if err != nil {
		return explain("unprotect the snapshot", err)
	}
	if err := snap.Remove(); err != nil && !is(err, syscall.ENOENT) {
		return explain("remove the snapshot", err)
	}
	return nil
}

const (
	fenceTries = 50 // looks whether a client that was put on the blocklist has gone
	fencePause = 100 * time.Millisecond
)

// fence puts on the cluster's blocklist the client that wrote the image of an upload, if it
// still has it open: the upload is to be abandoned, so none of its writes may come later.
// Anybody else who has it open is left alone, and the error is ErrInUse. It makes calls.
func fence(ses *session, id string) error {
	img, err := librbd.OpenImageByIdReadOnly(ses.ioctx, id, librbd.NoSnapshot)
	if is(err, syscall.ENOENT) {
		return nil
	} else if err != nil {
		return explain("look at the image", err)
	}
	defer img.Close()
	_, writer, err := markOf(img)
	if err != nil {
		return err
	}
	listed := false
	for range fenceTries {
		now, err := watchers(img)
		if err != nil || len(now) == 0 {
			return err
		}
		for _, w := range now {
			if uint64(w.Id) != writer || writer == ses.conn.GetInstanceID() {
				return fmt.Errorf("%w: %s has it open", backends.ErrInUse, w.Addr)
			}
			if !listed {
				if err := blocklist(ses, w.Addr); err != nil {
					return fmt.Errorf("%w: %s has it open: %w", backends.ErrInUse, w.Addr, err)
				}
				listed = true
			}
		}
		time.Sleep(fencePause)
	}
	return fmt.Errorf("%w: its writer still has it open", backends.ErrInUse)
}

// blocklist has the cluster refuse a client, for the hour that is its default. Before
// Ceph 16 the command was called by another name.
func blocklist(ses *session, addr string) error {
	var failed error
	for _, name := range []string{"blocklist", "blacklist"} {
		text, err := json.Marshal(map[string]string{"prefix": "osd " + name, name + "op": "add", "addr": addr})
		if err != nil {
			return err
		}
		if _, _, err = ses.conn.MonCommand(text); err == nil {
			return explain("wait for the blocklist", ses.conn.WaitForLatestOSDMap())
		}
		failed = explain("put it on the blocklist", err)
	}
	return failed
}
