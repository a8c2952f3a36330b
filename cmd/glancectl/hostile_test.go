package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"glanced/formats/formattest/hostile"
)

// What a command may take for an image, however hostile.
const (
	hostilePeak = 256 << 20       // bytes
	hostileCPU  = 5 * time.Second // of all threads
)

// TestHostileImagesAreRefusedWithinBounds runs the disk commands on every hostile
// image: each says what is wrong, in bounded memory and time, and leaves nothing;
// nothing is ever read as zeros in place of what is corrupt. With
// GLANCED_HOSTILE_ALL set, every command is run on every image.
func TestHostileImagesAreRefusedWithinBounds(t *testing.T) {
	long := os.Getenv("GLANCED_HOSTILE_ALL") != ""
	program := builtProgram(t)
	meters := make(chan *meter, 2)
	for range cap(meters) {
		meters <- newMeter(t)
	}
	t.Run("image", func(t *testing.T) { // waits for its parallel parts
		for _, img := range hostile.Images() {
			t.Run(img.Name, func(t *testing.T) {
				t.Parallel()
				m := <-meters
				defer func() { meters <- m }()
				path, err := img.Write(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				h := hostileRun{t: t, meter: m, program: program, img: img, path: path}
				h.info()
				h.convert()
				// What refuses to open refuses so for every command.
				if long || img.Want == nil || img.Step > hostile.Open {
					h.must("map", hostile.Map, "-f", "json")
					h.check()
				}
			})
		}
	})
}

// hostileRun is the program on one image.
type hostileRun struct {
	t       *testing.T
	meter   *meter
	program string
	img     hostile.Image
	path    string
}

// run runs one command, and checks what holds for all of them. A polyglot is not
// declared: it is who has to guess that it is made for.
func (h *hostileRun) run(args ...string) measured {
	h.t.Helper()
	args = append([]string{h.program, "disk"}, args...)
	if h.img.Class != hostile.Polyglot {
		args = append(args, "--format", h.img.Format, "--container", h.img.Container)
	}
	r := h.meter.run(h.t, args...)
	h.t.Logf("%v, %d MiB: %q", r.CPU, r.Peak>>20, args[2:])
	if r.Peak > hostilePeak {
		h.t.Errorf("%q takes %d MiB of memory", args[1:], r.Peak>>20)
	}
	if r.CPU > hostileCPU {
		h.t.Errorf("%q takes %v of CPU time", args[1:], r.CPU)
	}
	for _, crash := range []string{"panic", "goroutine ", "runtime error", "fatal error", "SIG"} {
		if bytes.Contains(r.Err, []byte(crash)) {
			h.t.Errorf("%q crashes: %s", args[1:], r.Err)
		}
	}
	if r.Code != exitDone && (r.Code != exitFailed || !bytes.HasPrefix(r.Err, []byte("glancectl: "))) {
		h.t.Errorf("%q: exit code %d, and says %q", args[1:], r.Code, r.Err)
	}
	return r
}

// says fails the test unless text gives the reason.
func (h *hostileRun) says(what, text string) {
	h.t.Helper()
	reason := h.img.Want.Error()
	if h.img.Class == hostile.Polyglot {
		reason = "at once"
	}
	if !strings.Contains(text, reason) {
		h.t.Errorf("%s says %q, not %q", what, text, reason)
	}
}

// must runs a command that has to fail if what is wrong is seen at step or before.
func (h *hostileRun) must(command string, step hostile.Step, more ...string) {
	h.t.Helper()
	r := h.run(append([]string{command, h.path}, more...)...)
	switch wrong := h.img.Want != nil && h.img.Step <= step; {
	case wrong && r.Code != exitFailed:
		h.t.Errorf("disk %s succeeds", command)
	case wrong:
		h.says("disk "+command, string(r.Err))
	case r.Code != exitDone:
		h.t.Errorf("disk %s: exit code %d, %s", command, r.Code, r.Err)
	}
}

// info may describe what is not safe, and must say so.
func (h *hostileRun) info() {
	h.t.Helper()
	r := h.run("info", h.path, "-f", "json")
	if r.Code != exitDone {
		if h.img.Want == nil || h.img.Step > hostile.Map {
			h.t.Errorf("disk info: exit code %d, %s", r.Code, r.Err)
			return
		}
		h.says("disk info", string(r.Err))
		return
	}
	var told struct {
		Safe    bool
		Refused string
	}
	if r.Printed > keptOutput {
		return // a list of thousands of snapshots
	}
	if err := json.Unmarshal(r.Out, &told); err != nil {
		h.t.Fatalf("%v: %s", err, r.Out)
	}
	wrong := h.img.Want != nil && h.img.Step <= hostile.Map
	if told.Safe == wrong {
		h.t.Errorf("disk info says safe: %v (%s)", told.Safe, told.Refused)
	}
	if wrong {
		h.says("disk info", told.Refused)
	}
}

// check may find more than the driver does: parts of a disk that lie at one place.
func (h *hostileRun) check() {
	h.t.Helper()
	if h.img.Class == hostile.Time && h.img.Want == nil {
		return // what it reads is as long as the disk
	}
	r := h.run("check", h.path, "-f", "json")
	if h.img.Want == nil {
		return
	}
	if r.Code != exitFailed {
		h.t.Error("disk check finds nothing")
	}
	h.says("disk check", string(r.Err))
}

// convert writes no file unless all of the disk could be read.
func (h *hostileRun) convert() {
	h.t.Helper()
	if h.img.Class == hostile.Time && h.img.Want == nil {
		return // what it writes is as long as the disk
	}
	dir := h.t.TempDir()
	for _, to := range []string{"raw", "qcow2", "vmdk"} {
		if to != "raw" && (h.img.Want == nil || h.img.Step != hostile.Read) {
			continue // what is seen before anything is read is the same for all
		}
		out := filepath.Join(dir, "out")
		r := h.run("convert", h.path, out, "--to", to)
		left, err := os.ReadDir(dir)
		if err != nil {
			h.t.Fatal(err)
		}
		switch {
		case h.img.Want == nil && r.Code != exitDone:
			h.t.Errorf("disk convert: exit code %d, %s", r.Code, r.Err)
		case h.img.Want == nil:
			os.Remove(out)
		case r.Code != exitFailed || len(left) > 0:
			h.t.Errorf("disk convert to %s: exit code %d, and leaves %v", to, r.Code, left)
		default:
			h.says("disk convert", string(r.Err))
		}
	}
}

// The measure itself must be able to fail: it sees memory, time and output.
func TestTheMeterSeesWhatAProgramTakes(t *testing.T) {
	m := newMeter(t)
	idle := m.run(t, "true")
	busy := m.run(t, "python3", "-c", "x = b'x' * (300 << 20); import sys; sum(range(10**7)); print('y' * 100000); sys.exit(7)")
	if idle.Peak > hostilePeak/2 || idle.Code != 0 {
		t.Errorf("true takes %+v", idle)
	}
	if busy.Peak < 300<<20 || busy.CPU < 20*time.Millisecond || busy.Code != 7 || busy.Printed != 100001 || len(busy.Out) != keptOutput {
		t.Errorf("python takes %d MiB, %v; code %d, %d bytes printed, %d kept", busy.Peak>>20, busy.CPU, busy.Code, busy.Printed, len(busy.Out))
	}
	if slices.Contains(os.Environ(), asMeter) {
		t.Error("this is a meter itself")
	}
}
