//go:build ceph

package rbd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
)

// session is a connection to the cluster, and by it the pool. It ends when nobody uses it
// any more and a new one has taken its place, or the store was closed.
type session struct {
	conn   *rados.Conn
	ioctx  *rados.IOContext
	fsid   string
	poolID int64

	closings calls // of images

	mu      sync.Mutex
	users   int
	retired bool
}

// connect makes a session. It takes as long as the cluster takes, and Config.Timeout at
// most for each step.
func connect(cfg Config) (*session, error) {
	conn, err := rados.NewConnWithUser(cfg.User)
	if err != nil {
		return nil, explain("prepare a connection", err)
	}
	if cfg.Conf != "" {
		if err := conn.ReadConfigFile(cfg.Conf); err != nil {
			return nil, explain("read conf", err)
		}
	}
	seconds := strconv.FormatInt(int64(time.Duration(cfg.Timeout)/time.Second), 10)
	for _, o := range [][2]string{
		{"mon_host", cfg.MonHost}, {"keyring", cfg.Keyring}, {"keyfile", cfg.KeyFile},
		{"client_mount_timeout", seconds}, {"rados_mon_op_timeout", seconds}, {"rados_osd_op_timeout", seconds},
		{"rbd_cache", "false"}, // what is written is in the cluster when the call returns
	} {
		if o[1] != "" {
			if err := conn.SetConfigOption(o[0], o[1]); err != nil {
				return nil, explain("set "+o[0], err)
			}
		}
	}
	if err := conn.Connect(); err != nil {
		if is(err, syscall.ENOENT) { // the library's word for a user without a key
			return nil, fmt.Errorf("connect: %w: there is no key of client.%s: set keyring or key_file", backends.ErrDenied, cfg.User)
		}
		return nil, explain("connect", err)
	}
	ses := &session{conn: conn, closings: make(calls, cfg.Connections)}
	if err := ses.enterPool(cfg.Pool); err != nil {
		conn.Shutdown()
		return nil, err
	}
	return ses, nil
}

func (ses *session) enterPool(pool string) (err error) {
	if ses.fsid, err = ses.conn.GetFSID(); err != nil {
		return explain("ask for the cluster's id", err)
	}
	if ses.ioctx, err = ses.conn.OpenIOContext(pool); is(err, syscall.ENOENT) {
		return noPool(pool)
	} else if err != nil {
		return explain("open the pool", err)
	}
	ses.poolID = ses.ioctx.GetPoolID()
	// A pool that is full answers so, where it would have who writes wait.
	return explain("prepare the pool", ses.ioctx.SetPoolFullTry())
}

// errPoolGone ends a session: a new pool of the same name is another one.
var errPoolGone = errors.New("the pool was there before")

func noPool(pool string) error {
	return fmt.Errorf("%w: there is no pool %q: make it (ceph osd pool create, rbd pool init), or set pool", backends.ErrUnavailable, pool)
}

// missing says of what was not found why not: a pool that is gone is ErrUnavailable, as
// what is not found is forgotten.
func (ses *session) missing(pool string, err error) error {
	if !is(err, syscall.ENOENT) {
		return err
	}
	if failed := ses.conn.WaitForLatestOSDMap(); failed != nil {
		return explain("look for the pool", failed)
	}
	id, failed := ses.conn.GetPoolByName(pool)
	switch {
	case is(failed, syscall.ENOENT), failed == nil && id != ses.poolID:
		return fmt.Errorf("%w (%w)", noPool(pool), errPoolGone)
	case failed != nil:
		return explain("look for the pool", failed)
	}
	return err
}

func (ses *session) use() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.users++
}

func (ses *session) leave() {
	ses.mu.Lock()
	ses.users--
	over := ses.retired && ses.users == 0
	ses.mu.Unlock()
	if over {
		ses.end()
	}
}

func (ses *session) retire() {
	ses.mu.Lock()
	over := !ses.retired && ses.users == 0
	ses.retired = true
	ses.mu.Unlock()
	if over {
		ses.end()
	}
}

// end is called once. It may wait for the cluster, and nobody waits for it.
func (ses *session) end() {
	go func() {
		ses.ioctx.Destroy()
		ses.conn.Shutdown()
	}()
}

// connecting is an attempt to make a session, which all wait for who need one.
type connecting struct {
	done chan struct{}
	err  error
}

// session is the store's session, which the caller leaves. The first caller has it made;
// one attempt is under way at a time, and lives on without those who waited for it.
func (s *Store) session(ctx context.Context) (*session, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, errors.New("the store is closed")
		}
		if s.current != nil {
			s.current.use()
			defer s.mu.Unlock()
			return s.current, nil
		}
		if s.attempt == nil {
			s.attempt = &connecting{done: make(chan struct{})}
			go s.connect(s.attempt)
		}
		attempt := s.attempt
		s.mu.Unlock()
		select {
		case <-attempt.done:
			if attempt.err != nil {
				return nil, attempt.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Store) connect(attempt *connecting) {
	ses, err := connect(s.cfg)
	s.mu.Lock()
	s.attempt = nil
	if err == nil && !s.closed {
		s.current = ses
	}
	closed := s.closed
	s.mu.Unlock()
	if err == nil && closed {
		ses.retire()
	}
	attempt.err = err
	close(attempt.done)
}

// heed gives up a session that the cluster refuses for good, or whose pool is gone, so
// that the next call makes a new one.
func (s *Store) heed(ses *session, err error) error {
	if is(err, syscall.ESHUTDOWN) || errors.Is(err, errPoolGone) {
		s.mu.Lock()
		mine := s.current == ses
		if mine {
			s.current = nil
		}
		s.mu.Unlock()
		if mine {
			ses.retire()
		}
	}
	return err
}

// handle is an open image. Its calls are counted, as it can be closed only when none is
// under way. Safe for concurrent use.
type handle struct {
	ses *session
	img *librbd.Image

	mu     sync.Mutex
	users  int
	closed bool
	done   chan struct{} // closed when the image is
}

func newHandle(ses *session, img *librbd.Image) *handle {
	ses.use()
	return &handle{ses: ses, img: img, done: make(chan struct{})}
}

// use is false for a handle that was closed.
func (h *handle) use() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.users++
	return true
}

// again is use by who uses it already.
func (h *handle) again() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users++
}

func (h *handle) leave() {
	h.mu.Lock()
	h.users--
	over := h.closed && h.users == 0
	h.mu.Unlock()
	if over {
		h.end()
	}
}

// close closes the image as soon as its last call has returned. It does not wait: done
// tells.
func (h *handle) close() {
	h.mu.Lock()
	over := !h.closed && h.users == 0
	h.closed = true
	h.mu.Unlock()
	if over {
		h.end()
	}
}

// end is called once. It may wait for the cluster, Config.Timeout at most for each step.
func (h *handle) end() {
	go func() {
		h.ses.closings <- struct{}{}
		h.img.Close()
		<-h.ses.closings
		h.ses.leave()
		close(h.done)
	}()
}
