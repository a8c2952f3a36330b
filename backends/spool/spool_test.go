package spool_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends/spool"
	"glanced/backends/stored"
)

const mib = 1 << 20

func newDir(t *testing.T, dir string, max int64) *spool.Dir {
	t.Helper()
	d, err := spool.New(dir, max, 2)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// writes is a fill that writes b in pieces of n bytes.
func writes(b []byte, n int) spool.Fill {
	return func(_ context.Context, w io.Writer) error {
		for part := range bytesChunk(b, n) {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	}
}

func bytesChunk(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

func notFilled(t *testing.T) spool.Fill {
	return func(context.Context, io.Writer) error { t.Error("filled again"); return errors.New("filled again") }
}

func mustGet(t *testing.T, d *spool.Dir, key string, fill spool.Fill) stored.Bytes {
	t.Helper()
	src, err := d.Get(t.Context(), key, fill)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func content(t *testing.T, src stored.Bytes) []byte {
	t.Helper()
	b := make([]byte, src.Size())
	if err := src.ReadAt(t.Context(), b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// data is n bytes without a zero.
func data(n int) []byte { return bytes.Repeat([]byte{'x'}, n) }

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestKeepsWhatWasWrittenAndZerosAsHoles(t *testing.T) {
	want := make([]byte, 3*mib+77)
	copy(want[mib+100:], data(20000))
	want[2*mib] = 1
	want[len(want)-1] = 1
	for _, n := range []int{1000, 4096, 5000, 32 << 10, 4 * mib} {
		d := newDir(t, t.TempDir(), 1<<30)
		for name, get := range map[string]func(spool.Fill) (stored.Bytes, error){
			"directory": func(fill spool.Fill) (stored.Bytes, error) { return d.Get(t.Context(), "a", fill) },
			"temporary": func(fill spool.Fill) (stored.Bytes, error) {
				return spool.Temporary(t.Context(), t.TempDir(), fill)
			},
		} {
			src, err := get(writes(want, n))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { src.Close() })
			if !bytes.Equal(content(t, src), want) {
				t.Errorf("%s, written by %d: other content", name, n)
			}
			x, ok := src.(stored.Extenter)
			if _, ranges := src.(stored.FileRanger); !ok || !ranges {
				t.Fatalf("%s: %T lacks an ability of a file", name, src)
			}
			var inData int64
			if err := x.Extents(t.Context(), 0, src.Size(), func(_, n int64, hole bool) bool {
				if !hole {
					inData += n
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if inData > 64<<10 {
				t.Errorf("%s, written by %d: %d bytes are stored, of 3 MiB mostly zeros", name, n, inData)
			}
		}
	}
}

func TestIsThereLaterAndAfterARestart(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir, 1<<30)
	mustGet(t, d, "image-1.ab", writes(data(10000), 4096)).Close()
	mustGet(t, d, "image-1.ab", notFilled(t)).Close()
	src := mustGet(t, newDir(t, dir, 1<<30), "image-1.ab", notFilled(t))
	if !bytes.Equal(content(t, src), data(10000)) {
		t.Error("other content")
	}
}

func TestAFailedFillLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir, 1<<30)
	broken := errors.New("broken")
	_, err := d.Get(t.Context(), "a", func(_ context.Context, w io.Writer) error {
		if _, err := w.Write(data(100000)); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	mustGet(t, d, "a", writes(data(5), 5))
}

func TestKeysThatAreNoFileNamesAreRefused(t *testing.T) {
	d := newDir(t, t.TempDir(), mib)
	for _, key := range []string{"", ".", "..", "a/b", "../a", ".partial-1", "a b", "é", "a\x00", strings.Repeat("a", 201)} {
		if _, err := d.Get(t.Context(), key, notFilled(t)); err == nil {
			t.Errorf("%q is taken", key)
		}
		if d.Remove(key) == nil {
			t.Errorf("%q is removed", key)
		}
	}
}

func TestAllWhoAskShareOneFill(t *testing.T) {
	d := newDir(t, t.TempDir(), 1<<30)
	var fills atomic.Int32
	begun, on := make(chan struct{}), make(chan struct{})
	fill := func(_ context.Context, w io.Writer) error {
		fills.Add(1)
		close(begun)
		<-on
		_, err := w.Write(data(10000))
		return err
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			src, err := d.Get(t.Context(), "a", fill)
			if err != nil {
				t.Error(err)
				return
			}
			defer src.Close()
			if src.Size() != 10000 {
				t.Errorf("size %d", src.Size())
			}
		})
	}
	<-begun
	close(on)
	all.Wait()
	if fills.Load() != 1 {
		t.Errorf("filled %d times", fills.Load())
	}
}

// under is a fill in another's hands, which ends when it is told to or its ctx ends.
type under struct {
	begun, on chan struct{}
	ended     chan error // what its ctx ended with; nil when it was told to go on
	result    chan error // of the one who asked
}

func begin(ctx context.Context, d *spool.Dir, key string) *under {
	u := &under{make(chan struct{}), make(chan struct{}), make(chan error, 1), make(chan error, 1)}
	go func() {
		src, err := d.Get(ctx, key, func(ctx context.Context, w io.Writer) error {
			close(u.begun)
			select {
			case <-u.on:
				u.ended <- nil
				_, err := w.Write(data(10000))
				return err
			case <-ctx.Done():
				u.ended <- context.Cause(ctx)
				return ctx.Err()
			}
		})
		if err == nil {
			src.Close()
		}
		u.result <- err
	}()
	<-u.begun
	return u
}

// waiter asks for key too, and is registered as a waiter when waiter returns.
func waiter(ctx context.Context, t *testing.T, d *spool.Dir, key string) chan error {
	t.Helper()
	result := make(chan error, 1)
	before := d.Waiting(key)
	go func() {
		src, err := d.Get(ctx, key, notFilled(t))
		if err == nil {
			src.Close()
		}
		result <- err
	}()
	for d.Waiting(key) == before {
		select {
		case err := <-result:
			t.Fatalf("did not wait: %v", err)
		default:
		}
	}
	return result
}

func TestTheFirstToAskMayLeaveWithoutEndingTheFill(t *testing.T) {
	d := newDir(t, t.TempDir(), 1<<30)
	ctx, leave := context.WithCancel(t.Context())
	u := begin(ctx, d, "a")
	other := waiter(t.Context(), t, d, "a")
	leave()
	for d.Waiting("a") != 1 { // it has left
	}
	close(u.on)
	if err := <-u.ended; err != nil {
		t.Errorf("the fill was ended: %v", err)
	}
	if err := <-other; err != nil {
		t.Errorf("the other got %v", err)
	}
	<-u.result
}

// Each needs much memory.
func TestFewFillsRunAtATime(t *testing.T) {
	d := newDir(t, t.TempDir(), 1<<30)
	first, second := begin(t.Context(), d, "a"), begin(t.Context(), d, "b")
	var running atomic.Bool
	third := make(chan error, 1)
	go func() {
		src, err := d.Get(t.Context(), "c", func(_ context.Context, w io.Writer) error {
			running.Store(true)
			_, err := w.Write(data(1))
			return err
		})
		if err == nil {
			src.Close()
		}
		third <- err
	}()
	for d.Waiting("c") == 0 && !running.Load() {
		time.Sleep(time.Millisecond)
	}
	// Who waits for its turn can leave.
	gone, leave := context.WithCancel(t.Context())
	fourth := make(chan error, 1)
	go func() {
		_, err := d.Get(gone, "d", notFilled(t))
		fourth <- err
	}()
	for d.Waiting("d") == 0 && !running.Load() {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-fourth; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if running.Load() {
		t.Error("a third fill runs beside two")
	}
	close(first.on)
	if err := <-third; err != nil {
		t.Error(err)
	}
	close(second.on)
	if err := errors.Join(<-first.result, <-second.result); err != nil {
		t.Error(err)
	}
}

func TestAFillEndsWhenAllHaveLeft(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir, 1<<30)
	ctx1, leave1 := context.WithCancel(t.Context())
	ctx2, leave2 := context.WithCancel(t.Context())
	u := begin(ctx1, d, "a")
	other := waiter(ctx2, t, d, "a")
	leave2()
	if err := <-other; !errors.Is(err, context.Canceled) {
		t.Errorf("the other got %v", err)
	}
	leave1()
	if err := <-u.ended; err == nil {
		t.Error("the fill goes on")
	}
	if err := <-u.result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	mustGet(t, d, "a", writes(data(5), 5))
}

func TestRemoveEndsAFillAndForgetsAFile(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir, 1<<30)
	u := begin(t.Context(), d, "a")
	other := waiter(t.Context(), t, d, "a")
	if err := d.Remove("a"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{<-u.result, <-other} {
		if !errors.Is(err, spool.ErrRemoved) {
			t.Errorf("got %v", err)
		}
	}
	src := mustGet(t, d, "a", writes(data(10000), 4096))
	if err := d.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if !bytes.Equal(content(t, src), data(10000)) {
		t.Error("who had it open reads other content")
	}
	if err := d.Remove("never"); err != nil {
		t.Error(err)
	}
}

func TestTheLeastRecentlyUsedMakesRoom(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir, 3*mib)
	for _, key := range []string{"a", "b", "c"} {
		mustGet(t, d, key, writes(data(mib-8192), 65536)).Close()
	}
	mustGet(t, d, "a", notFilled(t)).Close()
	mustGet(t, d, "d", writes(data(mib-8192), 65536)).Close()
	if left := strings.Join(names(t, dir), " "); left != "a.disk c.disk d.disk" {
		t.Errorf("left: %s", left)
	}
	// The order is known after a restart, with less room.
	newDir(t, dir, 2*mib)
	if left := strings.Join(names(t, dir), " "); left != "a.disk d.disk" {
		t.Errorf("after a restart: %s", left)
	}
}

func TestOpenFilesStayAndAFillWithoutRoomFails(t *testing.T) {
	dir := t.TempDir()
	d := newDir(t, dir, 2*mib)
	a := mustGet(t, d, "a", writes(data(mib), 65536))
	mustGet(t, d, "b", writes(data(mib/2), 65536)).Close()
	if _, err := d.Get(t.Context(), "c", writes(data(3*mib/2), 65536)); !errors.Is(err, spool.ErrFull) || !strings.Contains(err.Error(), "its limit") {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(content(t, a), data(mib)) {
		t.Error("other content")
	}
	mustGet(t, d, "a", notFilled(t)).Close()
	// What is removed while open takes room until it is closed.
	if err := d.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(t.Context(), "c", writes(data(3*mib/2), 65536)); !errors.Is(err, spool.ErrFull) {
		t.Errorf("got %v", err)
	}
	a.Close()
	a.Close()
	// No waiting helps what is larger than all of it.
	if _, err := d.Get(t.Context(), "c", writes(data(3*mib), 65536)); !errors.Is(err, spool.ErrLimit) {
		t.Errorf("got %v", err)
	}
	mustGet(t, d, "c", writes(data(3*mib/2), 65536))
}

func TestSparseImagesTakeTheRoomOfTheirDataOnly(t *testing.T) {
	d := newDir(t, t.TempDir(), mib)
	src := mustGet(t, d, "a", func(_ context.Context, w io.Writer) error {
		zeros := make([]byte, mib)
		for range 300 {
			if _, err := w.Write(zeros); err != nil {
				return err
			}
		}
		_, err := w.Write(data(5000))
		return err
	})
	if src.Size() != 300*mib+5000 {
		t.Errorf("size %d", src.Size())
	}
	mustGet(t, d, "b", writes(data(mib/2), 4096)) // beside the open one
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"README", "x y.disk", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), data(mib), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := newDir(t, dir, 64<<10)
	mustGet(t, d, "a", writes(data(5000), 4096))
	if n := len(names(t, dir)); n != 4 {
		t.Errorf("%d files: %v", n, names(t, dir))
	}
}

// TestKilledInTheMiddleOfAFill runs this test binary again, as the one that is killed.
func TestKilledInTheMiddleOfAFill(t *testing.T) {
	const env = "SPOOL_TEST_FILL"
	if dir := os.Getenv(env); dir != "" {
		d := newDir(t, dir, 1<<30)
		mustGet(t, d, "whole", writes(data(10000), 4096)).Close()
		d.Get(t.Context(), "half", func(_ context.Context, w io.Writer) error {
			w.Write(data(mib))
			os.Stdout.WriteString("\nfilling\n")
			select {}
		})
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledInTheMiddleOfAFill$")
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "filling"; {
	}
	cmd.Process.Kill()
	cmd.Wait()
	if n := len(names(t, dir)); n != 2 {
		t.Fatalf("the kill left %v: a whole file and a half were to be there", names(t, dir))
	}

	d := newDir(t, dir, 1<<30)
	if left := strings.Join(names(t, dir), " "); left != "whole.disk" {
		t.Errorf("left after a restart: %s", left)
	}
	mustGet(t, d, "whole", notFilled(t))
	filled := false
	mustGet(t, d, "half", func(_ context.Context, w io.Writer) error {
		filled = true
		_, err := w.Write(data(5))
		return err
	})
	if !filled {
		t.Error("what was half filled was served")
	}
}
