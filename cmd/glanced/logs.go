package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/term"
)

// logs is the daemon's log: its level and its file can change while it runs.
type logs struct {
	*slog.Logger
	level slog.LevelVar
	out   reopenable
}

// openLogs starts the log as configured.
func openLogs(c logConfig) (*logs, error) {
	l := &logs{out: reopenable{path: c.File, w: os.Stderr}}
	if err := l.out.reopen(); err != nil {
		return nil, err
	}
	l.setLevel(c.Level)
	opts := &slog.HandlerOptions{Level: &l.level}
	var h slog.Handler
	if c.Format == "text" || c.Format == "auto" && c.File == "" && term.IsTerminal(int(os.Stderr.Fd())) {
		h = slog.NewTextHandler(&l.out, opts)
	} else {
		h = slog.NewJSONHandler(&l.out, opts)
	}
	l.Logger = slog.New(h)
	return l, nil
}

func (l *logs) setLevel(word string) {
	var level slog.Level
	if level.UnmarshalText([]byte(word)) == nil { // check() saw to it
		l.level.Set(level)
	}
}

// reopenable writes to a file that can be moved away: reopen makes a new one
// under the old name (logrotate, then SIGHUP).
type reopenable struct {
	path string // "" = w stays what it is

	mu sync.Mutex
	w  io.Writer
	f  *os.File
}

func (r *reopenable) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.w.Write(p)
}

func (r *reopenable) reopen() error {
	if r.path == "" {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open the log file: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f != nil {
		r.f.Close()
	}
	r.w, r.f = f, f
	return nil
}
