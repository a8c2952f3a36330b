package main

import (
	"io"
	"os"
	"time"

	"github.com/cheggaaa/pb/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

func progressFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "progress", Usage: "show progress on stderr even when it is no terminal"},
		&cli.BoolFlag{Name: "no-progress", Usage: "show no progress"},
	}
}

// progress is a bar on stderr, or nothing. Its methods may be called on nil, and
// from several goroutines.
type progress struct {
	bar *pb.ProgressBar
	end func() // after the bar's last line
}

// startProgress starts a bar of total bytes (0 or less = unknown) where the
// options or a terminal ask for one.
func startProgress(c *cli.Context, s streams, what string, total int64) *progress {
	terminal := isTerminal(s.err)
	if c.Bool("no-progress") || (!terminal && !c.Bool("progress")) {
		return nil
	}
	bar := pb.New64(max(total, 0)).Set(pb.Bytes, true).Set("prefix", what)
	if total > 0 {
		bar.SetTemplate(pb.Full)
	} else {
		bar.SetTemplateString(`{{string . "prefix"}} {{counters . }} {{speed . }} {{etime . }}`)
	}
	end := func() {}
	if terminal {
		bar.SetMaxWidth(100)
	} else { // one line a second, for a log; a line begins with its newline
		bar.Set(pb.ReturnSymbol, "\n").SetRefreshRate(time.Second).SetWidth(100)
		end = func() { io.WriteString(s.err, "\n") }
	}
	return &progress{bar: bar.SetWriter(s.err).Start(), end: end}
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Update counts n more bytes; it makes a progress a convert.Updater.
func (p *progress) Update(n int64) {
	if p != nil {
		p.bar.Add64(n)
	}
}

// finish leaves the last state of the bar on its line.
func (p *progress) finish() {
	if p != nil {
		p.bar.Finish()
		p.end()
	}
}

// reader counts what is read of r.
func (p *progress) reader(r io.Reader) io.Reader {
	if p == nil {
		return r
	}
	return countingReader{r, p}
}

type countingReader struct {
	r io.Reader
	p *progress
}

func (c countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.p.Update(int64(n))
	return n, err
}
