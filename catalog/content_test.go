package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/formats"
	"glanced/formats/raw"
)

// tinyHead is the length of a tiny image's head: "TINY", a letter that chooses
// what is wrong with it (tinyInspect, tinyRefused; o: it cannot be opened, m: its
// map is torn, g: nothing), and padding. What follows is the first half of the
// guest disk; the second half is zeros.
const tinyHead = 512

// tinyImage is a tiny image with n bytes of data.
func tinyImage(defect byte, n int) []byte {
	head := make([]byte, tinyHead)
	copy(head, "TINY")
	head[4] = defect
	return append(head, noise(uint64(defect), n)...)
}

// tinyInspect is what Inspect fails with.
var tinyInspect = map[byte]error{
	'f': fmt.Errorf("%w: the head is bent", formats.ErrFormat),
	'c': fmt.Errorf("%w: the head is torn", formats.ErrCorrupt),
	'n': errors.New("the disk is on fire"), // not the content's fault
}

// tinyRefused is what Inspect finds as the reason for a refusal.
var tinyRefused = map[byte]error{
	'r': fmt.Errorf("%w: parent %q", formats.ErrReference, "/etc/shadow"),
	'u': fmt.Errorf("%w: journal", formats.ErrUnsupported),
	'l': fmt.Errorf("%w: 9 EiB", formats.ErrLimit),
	'e': fmt.Errorf("%w: rot13", formats.ErrEncrypted),
	'E': fmt.Errorf("%w: rot13", formats.ErrEncrypted),
}

// tinyDriver is called vhd, because images must have one of Glance's words.
func tinyDriver() formats.Driver {
	inspect := func(ctx context.Context, src stored.Bytes) (formats.Info, error) {
		head := make([]byte, tinyHead)
		if src.Size() < tinyHead {
			return formats.Info{}, fmt.Errorf("%w: %d bytes", formats.ErrFormat, src.Size())
		}
		if err := src.ReadAt(ctx, head, 0); err != nil {
			return formats.Info{}, err
		}
		if string(head[:4]) != "TINY" {
			return formats.Info{}, fmt.Errorf("%w: it begins with %q", formats.ErrFormat, head[:4])
		}
		if err := tinyInspect[head[4]]; err != nil {
			return formats.Info{}, err
		}
		info := formats.Info{Format: "vhd", VirtualSize: 2 * (src.Size() - tinyHead), Refused: tinyRefused[head[4]]}
		if head[4] == 'E' || head[4] == 'r' {
			info.Refs = []formats.Ref{{Kind: formats.RefParent, Name: "/etc/shadow"}}
		}
		return info, nil
	}
	return formats.Driver{
		Name:    "vhd",
		Probe:   func(head []byte) bool { return bytes.HasPrefix(head, []byte("TINY")) },
		Inspect: inspect,
		Open: func(ctx context.Context, src stored.Bytes, _ formats.Options) (formats.Layout, error) {
			info, err := inspect(ctx, src)
			if err != nil {
				return nil, err
			}
			if info.Refused != nil {
				return nil, info.Refused
			}
			defect := make([]byte, 1)
			if err := src.ReadAt(ctx, defect, 4); err != nil {
				return nil, err
			}
			if defect[0] == 'o' {
				return nil, fmt.Errorf("%w: the table is torn", formats.ErrCorrupt)
			}
			return &tinyLayout{info: info, torn: defect[0] == 'm'}, nil
		},
	}
}

type tinyLayout struct {
	info formats.Info
	torn bool // the second half of the map
}

func (l *tinyLayout) Size() int64        { return l.info.VirtualSize }
func (l *tinyLayout) Info() formats.Info { return l.info }
func (l *tinyLayout) Close() error       { return nil }

func (l *tinyLayout) Map(_ context.Context, off, n int64, yield func(formats.Extent) bool) error {
	half := l.Size() / 2
	if off < half {
		run := min(n, half-off)
		if !yield(formats.Extent{Off: off, Len: run, Kind: formats.Data, Pos: tinyHead + off, N: run}) {
			return nil
		}
		off, n = off+run, n-run
	}
	if n > 0 && l.torn {
		return fmt.Errorf("%w: entry 7 of the map", formats.ErrCorrupt)
	}
	if n > 0 {
		yield(formats.Extent{Off: off, Len: n, Kind: formats.Zero})
	}
	return nil
}

// twinDriver recognises a mark that a tiny image can bear as well.
func twinDriver() formats.Driver {
	d := tinyDriver()
	d.Name = "vdi"
	d.Probe = func(head []byte) bool { return len(head) > 12 && string(head[8:12]) == "TWIN" }
	return d
}

func withTiny(cfg *catalog.Config) {
	cfg.Drivers = []formats.Driver{tinyDriver(), twinDriver(), raw.Driver()}
}

func TestRefusedContentLeavesNothingAndTheNextTryWorks(t *testing.T) {
	w := newWorld(t, withTiny)
	polyglot := tinyImage('g', 4096)
	copy(polyglot[8:], "TWIN")
	for _, c := range []struct {
		name    string
		content []byte
		want    error
		says    string
	}{
		{"its own driver says it is not one", tinyImage('f', 4096), catalog.ErrFormat, "bent"},
		{"a torn header", tinyImage('c', 4096), catalog.ErrUnsafe, "torn"},
		{"a reference", tinyImage('r', 4096), catalog.ErrUnsafe, `parent "/etc/shadow"`},
		{"an encrypted image with a reference", tinyImage('E', 4096), catalog.ErrUnsafe, `parent "/etc/shadow"`},
		{"an unknown feature", tinyImage('u', 4096), catalog.ErrUnsafe, "journal"},
		{"an absurd size", tinyImage('l', 4096), catalog.ErrUnsafe, "9 EiB"},
		{"a torn table", tinyImage('o', 4096), catalog.ErrUnsafe, "table"},
		{"a torn map", tinyImage('m', 4096), catalog.ErrUnsafe, "entry 7"},
		{"an unreadable disk", tinyImage('n', 4096), catalog.ErrStore, "on fire"},
		{"another format", append([]byte("\x00\x00\x00\x00\x00\x00\x00\x00TWIN"), noise(1, 4096)...), catalog.ErrFormat, "declared vhd, found vdi"},
		{"two formats at once", polyglot, catalog.ErrFormat, "at once"},
		{"no format", noise(2, 4096), catalog.ErrFormat, "declared vhd, which it is not"},
		{"one byte", []byte("T"), catalog.ErrFormat, "declared vhd"},
		{"a head that breaks off", []byte("TINY"), catalog.ErrFormat, "4 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := w.queued(t, "vhd", "bare")
			err := w.Upload(t.Context(), img.ID, bytes.NewReader(c.content), catalog.UploadOptions{Size: int64(len(c.content))})
			wantErr(t, err, c.want)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
			w.wantUntouched(t, img.ID)
			if err := w.Upload(t.Context(), img.ID, bytes.NewReader(tinyImage('g', 100)), catalog.UploadOptions{Size: -1}); err != nil {
				t.Errorf("the next try: %v", err)
			}
			if err := w.Delete(t.Context(), img.ID); err != nil {
				t.Error(err)
			}
			w.wantNothingStored(t)
		})
	}
}

// The pipe stays open: were the rest waited for, the upload would never return.
func TestWrongContentIsRefusedBeforeTheRestIsRead(t *testing.T) {
	w := newWorld(t, withTiny)
	img := w.queued(t, "vhd", "bare")
	r, client := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- w.Upload(t.Context(), img.ID, r, catalog.UploadOptions{Size: 1 << 30})
	}()
	if _, err := client.Write(noise(1, formats.ProbeLen)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, <-done, catalog.ErrFormat)
	w.wantUntouched(t, img.ID)
}

// The head may come in any pieces.
func TestTheHeadIsRecognisedByteByByte(t *testing.T) {
	w := newWorld(t, withTiny)
	content := tinyImage('g', formats.ProbeLen+3)
	img := w.queued(t, "vhd", "bare")
	if err := w.Upload(t.Context(), img.ID, dribble{bytes.NewReader(content)}, catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	w.wantGuest(t, img.ID, append(content[tinyHead:], make([]byte, len(content)-tinyHead)...))
	other := w.queued(t, "vdi", "bare")
	err := w.Upload(t.Context(), other.ID, dribble{bytes.NewReader(content)}, catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrFormat)
}

// dribble yields a byte at a time.
type dribble struct{ r io.Reader }

func (d dribble) Read(p []byte) (int, error) { return d.r.Read(p[:min(1, len(p))]) }

// wantGuest fails unless the guest disk of an image is want.
func (w *world) wantGuest(t *testing.T, id string, want []byte) {
	t.Helper()
	h, err := w.Open(t.Context(), id, catalog.View{})
	if err != nil {
		t.Error(err)
		return
	}
	defer h.Close()
	if !bytes.Equal(readAll(t, h), want) {
		t.Errorf("the guest disk of image %s reads other bytes", id)
	}
}

// wantStored fails unless the stored bytes of an image are want.
func (w *world) wantStored(t *testing.T, id string, want []byte) {
	t.Helper()
	h, err := w.Open(t.Context(), id, catalog.View{Stored: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer h.Close()
	if !bytes.Equal(readAll(t, h), want) {
		t.Errorf("image %s is stored as other bytes", id)
	}
}

func TestWhatCannotBeDecodedIsStoredOnly(t *testing.T) {
	w := newWorld(t, withTiny)
	for _, c := range []struct {
		name, disk, container string
		content               []byte
		why                   string // "" = it has a guest disk
		virtual, allocated    *int64
	}{
		{"encrypted", "vhd", "bare", tinyImage('e', 4096), "encrypted", ptr(int64(8192)), nil},
		{"without a driver", "ploop", "bare", noise(1, 4096), "no driver for disk format ploop", nil, nil},
		{"empty", "vhd", "bare", nil, "empty", nil, nil},
		{"raw in a container", "raw", "ova", noise(2, 4096), "container (ova)", nil, nil},
		{"torn in a container", "vhd", "ovf", tinyImage('c', 4096), "torn", nil, nil},
		{"another format in a container", "vhd", "ova", noise(3, 4096), "not an image of this format", nil, nil},
		{"good", "vhd", "bare", tinyImage('g', 4096), "", ptr(int64(8192)), ptr(int64(4096))},
		{"good in a container", "vhd", "ovf", tinyImage('g', 4096), "", ptr(int64(8192)), ptr(int64(4096))},
		{"another format declared raw", "raw", "bare", tinyImage('r', 4096), "", ptr(int64(4608)), ptr(int64(4608))},
		{"empty and raw", "raw", "bare", nil, "", ptr(int64(0)), ptr(int64(0))},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := w.active(t, c.disk, c.container, c.content)
			if *img.Size != int64(len(c.content)) || !samePtr(img.VirtualSize, c.virtual) || !samePtr(img.Allocated, c.allocated) {
				t.Errorf("size %d, virtual size %s, allocated %s", *img.Size, show(img.VirtualSize), show(img.Allocated))
			}
			w.wantStored(t, img.ID, c.content)
			_, err := w.openAndClose(t, img.ID)
			if c.why == "" {
				if err != nil || img.DiskError != "" {
					t.Errorf("open: %v; disk error %q", err, img.DiskError)
				}
				return
			}
			wantErr(t, err, catalog.ErrStoredOnly)
			if !strings.Contains(img.DiskError, c.why) || err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("disk error %q, open error %v: neither may lack %q", img.DiskError, err, c.why)
			}
		})
	}
}

// openAndClose opens the guest disk, and is its size.
func (w *world) openAndClose(t *testing.T, id string) (int64, error) {
	t.Helper()
	h, err := w.Open(t.Context(), id, catalog.View{})
	if err != nil {
		return 0, err
	}
	defer h.Close()
	return h.Size(), nil
}

func samePtr(a, b *int64) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

func show(p *int64) string {
	if p == nil {
		return "null"
	}
	return fmt.Sprint(*p)
}
