package main

import (
	"fmt"
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
	l := &logs{}
	out, err := openLogFile(c.File)
	if err != nil {
		return nil, err
	}
	l.out.use(out)
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

// reopenable writes to a file that another may take the place of. The file can be moved
// away and a new one made under the old name (logrotate, then SIGHUP).
type reopenable struct {
	mu sync.Mutex
	f  *os.File
}

// openLogFile opens the file of a log; "" is standard error.
func openLogFile(path string) (*os.File, error) {
	if path == "" {
		return os.Stderr, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the log file: %w", err)
	}
	return f, nil
}

func (r *reopenable) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.Write(p)
}

// use writes to f from now on, and closes what was written to before.
func (r *reopenable) use(f *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	closeLogFile(r.f)
	r.f = f
}

func closeLogFile(f *os.File) {
	if f != nil && f != os.Stderr {
		f.Close()
	}
}
