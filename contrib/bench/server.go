package main

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// endWithin is how long a program may take to end when it is asked to, before it is
// killed. glanced takes ten seconds at most.
const endWithin = 20 * time.Second

// server is a program that runs until it is stopped, or until its context ends: it is
// asked to end then, for one that is killed leaves its mount and its sockets behind. It
// and what it starts are asked once, as a second signal kills glanced; for the same
// reason the terminal's interrupt, which ends the context, reaches no server.
type server struct {
	*exec.Cmd
	asked sync.Once
}

// newServer is a server that is yet to be started.
func newServer(ctx context.Context, name string, args ...string) *server {
	s := &server{Cmd: exec.CommandContext(ctx, name, args...)}
	s.Stderr = os.Stderr
	s.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // out of the terminal's foreground
	s.Cancel, s.WaitDelay = s.ask, endWithin
	return s
}

func (s *server) ask() (err error) {
	s.asked.Do(func() { err = syscall.Kill(-s.Process.Pid, syscall.SIGTERM) })
	return err
}

// stop returns when it has ended.
func (s *server) stop() {
	s.ask()
	s.Wait()
}

func (s *server) pid() int { return s.Process.Pid }
