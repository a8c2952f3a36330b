package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"glanced/catalog"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// defaultReadAhead is how far the kernel reads ahead of a sequential reader,
	// KiB. The kernel's own 128 KiB leaves a remote store idle most of the time.
	defaultReadAhead = 16384

	defaultRecords = 16 << 20 // Config.RecordBytes where that is 0

	// remember is how long the kernel keeps names and attributes it was not told
	// to forget. Changes are told at once; this bounds how long the rare lookup
	// that crossed a notification can stay wrong.
	remember = time.Minute

	// unmountLimit bounds each step of Unmount.
	unmountLimit = 5 * time.Second
)

// Config says what to mount and where.
type Config struct {
	Catalog    *catalog.Catalog
	Mountpoint string // made if missing; must be empty
	Log        *slog.Logger

	// Passthrough lets the kernel read the local file of a raw image (and of any
	// image's file) itself, at the speed of that file system. A file opened so can
	// be read until it is closed even when its image is deactivated or deleted.
	Passthrough bool

	// The tree shows every image, whoever owns it, so it is for the user who mounts
	// (and root) alone, and for those that are named here: Users by id, let in or kept
	// out whatever their groups, and the members of Groups. Only root can let others in.
	Users  map[uint32]bool
	Groups []uint32

	// ReadAheadKiB is the kernel's read-ahead on this mount; 0 = 16384.
	ReadAheadKiB int

	MemoryBytes int64 // for the kernel's requests under way; 0 = 128 MiB
	RecordBytes int64 // for the images' records, of those kept and of those whose metadata.json is open; 0 = 16 MiB
	MaxOpen     int   // files that are open at once, each program's counted; more fail with ENFILE; 0 = no limit
}

// Server is one mount.
type Server struct {
	t      *tree
	path   string
	device string // major:minor of the mount
	fuse   *fuse.Server
	log    *slog.Logger
	served chan struct{}      // closed when the kernel has let the mount go
	stop   context.CancelFunc // ends the follower and the notifier
	ended  sync.WaitGroup     // of these two

	once sync.Once
	err  error
}

// Mount mounts the tree and serves it until Unmount; it returns when the kernel
// has it and every image that the catalog holds is in it. A mount that a killed
// daemon left at the mountpoint is cleared first. ctx bounds the mounting alone.
// It fails with ErrMountpoint, or with the catalog's error.
func Mount(ctx context.Context, cfg Config) (*Server, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.RecordBytes == 0 {
		cfg.RecordBytes = defaultRecords
	}
	path, err := prepare(ctx, cfg.Mountpoint)
	if err != nil {
		return nil, err
	}
	t := newTree(cfg, log)
	if err := t.follower.load(ctx); err != nil {
		return nil, fmt.Errorf("list the images to mount at %s: %w", path, err)
	}
	server, err := gofuse.Mount(path, t.root, options(t.root.acl != nil, requestsWithin(cfg.MemoryBytes), log))
	if err != nil {
		if m, mounted, _ := mountAt(path); mounted && m.fstype == "fuse."+typeName {
			err = errors.Join(err, detach(path)) // mounted, and failed after it
		}
		return nil, fmt.Errorf("%w: mount %s: %w; FUSE needs /dev/fuse, and root or fusermount3", ErrMountpoint, path, err)
	}
	s := &Server{t: t, path: path, fuse: server, log: log, served: make(chan struct{})}
	go func() {
		server.Wait()
		close(s.served)
	}()
	if m, ok, err := mountAt(path); err == nil && ok {
		s.device = m.device
	}
	readAhead := cfg.ReadAheadKiB
	if readAhead == 0 {
		readAhead = defaultReadAhead
	}
	if err := s.setReadAhead(readAhead); err != nil {
		log.Warn("fuse: the kernel's read-ahead stays at its default; remote images read slower", "error", err)
	}
	// The daemon's own life, not the caller's call: Unmount ends it.
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.ended.Go(func() { t.follower.run(following) })
	s.ended.Go(func() { t.follower.notes.run(following) })
	return s, nil
}

// options are go-fuse's, as they were measured to be best; acl: the root has one.
func options(acl bool, r requests, log *slog.Logger) *gofuse.Options {
	keep := remember
	o := &gofuse.Options{
		EntryTimeout:    &keep,
		AttrTimeout:     &keep,
		NegativeTimeout: nil, // a name not found may be there the next moment
		UID:             uint32(os.Geteuid()),
		RootStableAttr:  &gofuse.StableAttr{Ino: rootIno},
		Logger:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	o.MountOptions = fuse.MountOptions{
		FsName:                   typeName,
		Name:                     typeName,
		MaxBackground:            r.background,
		MaxWrite:                 r.read, // READ's limit too
		MaxInflightRequestBytes:  r.inFlightBytes(),
		DisableSplice:            true, // a pipe holds less than one READ
		IgnoreSecurityLabels:     !acl, // with an ACL they are asked for like other attributes
		EnableAcl:                acl,
		ExplicitDataCacheControl: true, // content never changes; only we take it back
		ExtraCapabilities:        fuse.CAP_ASYNC_DIO | fuse.CAP_READDIRPLUS_AUTO,
		Logger:                   slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Options:                  []string{"default_permissions"},
	}
	if os.Geteuid() == 0 {
		o.AllowOther = true
		o.DirectMountStrict = true
		o.DirectMountFlags = syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOATIME
	} else { // through fusermount3, which lets others in only if its configuration says so
		o.MountOptions.Options = append(o.MountOptions.Options, "ro", "nosuid", "nodev", "noatime")
	}
	return o
}

// setReadAhead sets the mount's read-ahead, KiB.
func (s *Server) setReadAhead(kib int) error {
	if s.device == "" {
		return errors.New("the mount is not in /proc/self/mountinfo")
	}
	knob := filepath.Join("/sys/class/bdi", s.device, "read_ahead_kb")
	return os.WriteFile(knob, []byte(strconv.Itoa(kib)), 0)
}

// Mountpoint is where the tree is mounted, absolute and free of symbolic links.
func (s *Server) Mountpoint() string { return s.path }

// Done is closed when the mount is gone, by Unmount or by somebody's umount(8).
func (s *Server) Done() <-chan struct{} { return s.served }

// Unmount takes the mount away within some seconds, and every image it holds
// open is given back. When programs still use it, it is detached: the path is
// free at once, and what they read next fails. It may be called again, and after
// somebody else unmounted.
func (s *Server) Unmount() error {
	s.once.Do(func() { s.err = s.unmount() })
	return s.err
}

func (s *Server) unmount() error {
	err := s.takeAway()
	s.stop()
	ended := make(chan struct{})
	go func() {
		s.ended.Wait()
		s.t.closeAll()
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-time.After(unmountLimit):
		return errors.Join(err, fmt.Errorf("unmount %s: reads under way did not end within %s", s.path, unmountLimit))
	}
}

// takeAway makes the path free and waits for the kernel's last request.
func (s *Server) takeAway() error {
	if s.waitServed(0) {
		return nil
	}
	if s.umount() == nil && s.waitServed(unmountLimit) {
		return nil
	}
	if m, ok, err := mountAt(s.path); err == nil && ok && m.device == s.device {
		s.log.Warn("fuse: the mount is in use and was detached", "mountpoint", s.path)
		if err := detach(s.path); err != nil {
			return fmt.Errorf("unmount %s: %w", s.path, err)
		}
	}
	if s.abort() {
		s.waitServed(unmountLimit)
	}
	return nil
}

// umount tries a clean unmount for a moment: a program that just closed its
// files may hold it a little longer.
func (s *Server) umount() error {
	var err error
	for pause := 5 * time.Millisecond; pause < 200*time.Millisecond; pause *= 2 {
		if os.Geteuid() == 0 {
			err = unix.Unmount(s.path, unix.UMOUNT_NOFOLLOW)
		} else {
			err = fusermount("-u", s.path)
		}
		if err == nil || s.waitServed(pause) {
			return nil
		}
	}
	return err
}

// detach takes a mount away from its path though it is in use.
func detach(path string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", "-z", path)
}

func fusermount(args ...string) error {
	out, err := exec.Command("fusermount3", append(args[:len(args)-1:len(args)-1], "--", args[len(args)-1])...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// abort cuts the connection of a detached mount, where fusectl is mounted: what
// is open fails instead of being served on. Elsewhere the open files are closed
// on our side, which comes to the same until this process ends.
func (s *Server) abort() bool {
	_, minor, ok := strings.Cut(s.device, ":")
	if !ok {
		return false
	}
	f, err := os.OpenFile(filepath.Join("/sys/fs/fuse/connections", minor, "abort"), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.WriteString("1")
	return err == nil
}

// waitServed tells whether the kernel has let the mount go, within d.
func (s *Server) waitServed(d time.Duration) bool {
	if d == 0 {
		select {
		case <-s.served:
			return true
		default:
			return false
		}
	}
	limit := time.NewTimer(d)
	defer limit.Stop()
	select {
	case <-s.served:
		return true
	case <-limit.C:
		return false
	}
}
