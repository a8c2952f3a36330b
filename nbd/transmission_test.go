package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"

	"glanced/formats"
)

// holed is a disk of 1 MiB: data, a hole from 256 to 512 KiB, data.
func holed() *disk {
	b := bytes.Repeat([]byte{7}, 1<<20)
	clear(b[256<<10 : 512<<10])
	return newDisk("d", b)
}

func TestHolesAreNotShipped(t *testing.T) {
	for name, d := range map[string]*disk{"memory": holed(), "file": holed().onFile(t)} {
		_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
		for _, p := range []*prober{open(t, unix, "d", true), open(t, tcp, "d", true)} {
			for _, c := range []struct {
				off   uint64
				n     uint32
				flags uint16
				want  []uint16
			}{
				{0, 1 << 20, 0, []uint16{chunkOffsetData, chunkOffsetHole, chunkOffsetData}},
				{0, 1 << 20, cmdFlagDF, []uint16{chunkOffsetData}},
				{256 << 10, 256 << 10, 0, []uint16{chunkOffsetHole}},
				{256 << 10, 256 << 10, cmdFlagDF, []uint16{chunkOffsetHole}},
				{300 << 10, block, 0, []uint16{chunkOffsetHole}},
				{300 << 10, block, cmdFlagDF, []uint16{chunkOffsetHole}},
				{0, block, 0, []uint16{chunkOffsetData}},
				{0, 64 << 10, cmdFlagDF, []uint16{chunkOffsetData}},
				{(256 << 10) - 1, 2, 0, []uint16{chunkOffsetData}},
				{1<<20 - 1, 1, 0, []uint16{chunkOffsetData}},
			} {
				p.request(cmdRead, c.flags, c.off, c.n)
				r := p.answer(c.off, int(c.n))
				if r.errno != 0 || !bytes.Equal(r.data, d.data[c.off:c.off+uint64(c.n)]) {
					t.Errorf("%s: %+v: errno %d %s, or the data is wrong", name, c, r.errno, r.text)
				}
				if fmt.Sprint(r.kinds) != fmt.Sprint(c.want) {
					t.Errorf("%s: %+v: chunks %v", name, c, r.kinds)
				}
			}
		}
	}
}

func TestFileRunsHolesAndMemoryMixInOneReply(t *testing.T) {
	d := newDisk("d", mixed(16<<20)).onFile(t)
	_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	for _, p := range []*prober{open(t, unix, "d", true), open(t, tcp, "d", true), open(t, tcp, "d", false)} {
		for _, c := range [][2]int{{0, 16 << 20}, {12345, 9 << 20}, {1, 40000}, {70_000, 33_000}, {16<<20 - 40_001, 40_001}} {
			p.request(cmdRead, 0, uint64(c[0]), uint32(c[1]))
			if r := p.answer(uint64(c[0]), c[1]); r.errno != 0 || !bytes.Equal(r.data, d.data[c[0]:c[0]+c[1]]) {
				t.Errorf("%v: errno %d %s, or the data is wrong", c, r.errno, r.text)
			}
		}
	}
}

func TestBlockStatusStopsWhereItIsTold(t *testing.T) {
	d := holed()
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", true)
	for _, c := range []struct {
		off   uint64
		n     uint32
		flags uint16
		want  []uint32
	}{
		{0, 1 << 20, 0, []uint32{256 << 10, 0, 256 << 10, 3, 512 << 10, 0}},
		{0, 1 << 20, cmdFlagReqOne, []uint32{256 << 10, 0}},
		{0, 100, cmdFlagReqOne, []uint32{100, 0}},
		{(512 << 10) - 7, 8, 0, []uint32{7, 3, 1, 0}},
	} {
		p.request(cmdBlockStatus, c.flags, c.off, c.n)
		if r := p.answer(0, 0); r.errno != 0 || fmt.Sprint(r.status) != fmt.Sprint(c.want) {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

func TestAnswersToAFragmentedDiskAreBounded(t *testing.T) {
	b := make([]byte, 3*maxDescriptors*block)
	for off := 0; off < len(b); off += 2 * block {
		b[off] = 1
	}
	d := newDisk("d", b)
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", true)
	p.request(cmdBlockStatus, 0, 0, uint32(len(b)))
	if r := p.answer(0, 0); len(r.status) != 2*maxDescriptors {
		t.Errorf("%d descriptors", len(r.status)/2)
	}
	p.request(cmdRead, 0, 0, maxRequest)
	r := p.answer(0, maxRequest)
	if len(r.kinds) != maxRequest/block || !bytes.Equal(r.data, b[:maxRequest]) {
		t.Errorf("%d chunks, or the data is wrong", len(r.kinds))
	}
}

func TestRequestsAreRefusedInStep(t *testing.T) {
	const (
		write  = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
		eperm  = protocol.TRANSMISSION_ERROR_EPERM
		einval = protocol.TRANSMISSION_ERROR_EINVAL
	)
	d := newDisk("d", mixed(40<<20))
	prefetched := make(chan [2]int64, 10)
	d.onPrefetch = func(off, n int64) { prefetched <- [2]int64{off, n} }
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	for _, structured := range []bool{true, false} {
		p := open(t, unix, "d", structured)
		overflow := uint32(errnoOverflow)
		if !structured {
			overflow = einval
		}
		for _, c := range []struct {
			what        string
			kind, flags uint16
			off         uint64
			n           uint32
			payload     int
			want        uint32
		}{
			{"past the end", cmdRead, 0, 40 << 20, 1, 0, einval},
			{"across the end", cmdRead, 0, 40<<20 - 1, 2, 0, einval},
			{"offset that overflows", cmdRead, 0, 1<<64 - 1, 2, 0, einval},
			{"no bytes", cmdRead, 0, 0, 0, 0, einval},
			{"oversize", cmdRead, 0, 0, maxRequest + 1, 0, einval},
			{"oversize in one piece", cmdRead, cmdFlagDF, 0, maxRequest + 1, 0, overflow},
			{"unknown read flag", cmdRead, 1 << 9, 0, 512, 0, einval},
			{"request-one of a read", cmdRead, cmdFlagReqOne, 0, 512, 0, einval},
			{"write", write, 0, 0, 512, 512, eperm},
			{"write with a flag", write, 1, 0, 100_000, 100_000, eperm},
			{"write of 32 MiB out of range", write, 0, 1 << 60, maxRequest, maxRequest, eperm},
			{"trim", cmdTrim, 0, 0, 512, 0, eperm},
			{"write zeroes", cmdWriteZeroes, 0, 0, 1 << 31, 0, eperm},
			{"resize", 8, 0, 0, 512, 0, einval},
			{"unknown command", 4711, 0, 0, 512, 0, einval},
			{"flush", cmdFlush, 0, 0, 0, 0, 0},
			{"flush with a flag", cmdFlush, 1, 0, 0, 0, einval},
			{"cache", cmdCache, 0, 4096, 39 << 20, 0, 0},
			{"cache out of range", cmdCache, 0, 4096, 40 << 20, 0, einval},
			{"status out of range", cmdBlockStatus, 0, 4096, 40 << 20, 0, einval},
			{"status of nothing", cmdBlockStatus, 0, 4096, 0, 0, einval},
		} {
			h := p.request(c.kind, c.flags, c.off, c.n)
			p.send(bytes.Repeat([]byte{0x25}, c.payload))
			r := p.answer(0, 0)
			if r.errno != c.want || r.handle != h {
				t.Errorf("%s: errno %d %q, want %d", c.what, r.errno, r.text, c.want)
			}
			if structured && r.errno != 0 && r.text == "" {
				t.Errorf("%s: no message", c.what)
			}
		}
		p.request(cmdRead, 0, 1000, 3000)
		if r := p.answer(1000, 3000); r.errno != 0 || !bytes.Equal(r.data, d.data[1000:4000]) {
			t.Error("the stream is out of step")
		}
		if got := <-prefetched; got != [2]int64{4096, 39 << 20} || len(prefetched) != 0 {
			t.Errorf("prefetched %v and %d more", got, len(prefetched))
		}
	}
}

func TestBrokenRequestsHangUp(t *testing.T) {
	d := newDisk("d", mixed(block))
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	for name, b := range map[string][]byte{
		"bad magic":          make([]byte, requestSize),
		"write of 4 GiB":     requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_WRITE, 0, 1, 0, 1<<32-1),
		"polite disconnect":  requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_DISC, 0, 1, 0, 0),
		"disconnect in rows": bytes.Repeat(requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_DISC, 0, 1, 0, 0), 3),
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, unix, "d", true)
			p.send(b)
			if name == "disconnect in rows" {
				return // what is unread makes the close a reset
			}
			p.closed()
		})
	}
	eventually(t, "every export closed", func() bool { return d.open.Load() == 0 })
}

func TestDisconnectAnswersWhatCameBefore(t *testing.T) {
	d := newDisk("d", mixed(1<<20))
	started, release := make(chan struct{}), make(chan struct{})
	d.onRead = func(context.Context, int64, int64) error { close(started); <-release; return nil }
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", false)
	p.request(cmdRead, 0, 0, block)
	p.request(protocol.TRANSMISSION_TYPE_REQUEST_DISC, 0, 0, 0)
	<-started
	close(release)
	if r := p.answer(0, block); r.errno != 0 || !bytes.Equal(r.data, d.data[:block]) {
		t.Errorf("errno %d", r.errno)
	}
	p.closed()
}

func TestASlowReadDoesNotHoldUpOthers(t *testing.T) {
	d := newDisk("d", mixed(1<<20))
	release := make(chan struct{})
	d.onRead = func(ctx context.Context, off, n int64) error {
		if off == 0 {
			<-release
		}
		return nil
	}
	_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	for _, p := range []*prober{open(t, unix, "d", true), open(t, tcp, "d", false)} {
		slow := p.request(cmdRead, 0, 0, block)
		for range 3 * DefaultMaxInFlight {
			fast := p.request(cmdRead, 0, block, block)
			if r := p.answer(block, block); r.handle != fast || !bytes.Equal(r.data, d.data[block:2*block]) {
				t.Fatalf("reply to %d, want %d", r.handle, fast)
			}
		}
		release <- struct{}{}
		if r := p.answer(0, block); r.handle != slow || !bytes.Equal(r.data, d.data[:block]) {
			t.Errorf("reply to %d, want %d", r.handle, slow)
		}
	}
}

func TestRequestsThatComeInPiecesOrInHeapsAreAllAnswered(t *testing.T) {
	for _, d := range []*disk{newDisk("d", mixed(4<<20)), newDisk("d", mixed(4<<20)).onFile(t)} {
		_, unix, _ := serve(t, Config{Exports: newLibrary(d), MaxInFlight: 3, ServerBytes: 600_000})
		p := open(t, unix, "d", true)
		const n = 500
		where := map[uint64]uint64{}
		var all []byte
		for i := range uint64(n) {
			off := i * 7919 % (4<<20 - 40_000)
			where[i] = off
			all = append(all, requestBytes(cmdRead, 0, i, off, uint32(1+i*81%40_000))...)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			for len(all) > 0 {
				m := min(len(all), 1+len(all)%997)
				if _, err := p.Write(all[:m]); err != nil {
					t.Error(err)
					return
				}
				all = all[m:]
			}
		})
		for range n {
			// A reply's place is known from its handle, which comes first.
			r := p.answerTo(where, 64<<10)
			i := r.handle
			want := d.data[where[i]:][:1+i*81%40_000]
			if r.errno != 0 || !bytes.Equal(r.data[:len(want)], want) {
				t.Fatalf("reply %d: errno %d %s, or the data is wrong", i, r.errno, r.text)
			}
		}
		sending.Wait()
	}
}

func TestAFailedReadFailsAlone(t *testing.T) {
	d := holed()
	d.onRead = func(ctx context.Context, off, n int64) error {
		if off >= 512<<10 {
			return errors.New("dial tcp 192.0.2.1:443: a secret of the store")
		}
		return nil
	}
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	for _, structured := range []bool{true, false} {
		p := open(t, unix, "d", structured)
		for _, n := range []uint32{block, 400 << 10} {
			p.request(cmdRead, 0, 600<<10, n)
			r := p.answer(600<<10, int(n))
			if r.errno != errnoIO || bytes.Contains([]byte(r.text), []byte("secret")) {
				t.Errorf("errno %d %q", r.errno, r.text)
			}
		}
		p.request(cmdRead, 0, 100<<10, 900<<10)
		r := p.answer(100<<10, 900<<10)
		if r.errno != errnoIO && structured || structured && r.at != 512<<10 {
			t.Errorf("errno %d at %d", r.errno, r.at)
		}
		p.request(cmdRead, 0, 0, block)
		if r := p.answer(0, block); r.errno != 0 || r.data[0] != 7 {
			t.Errorf("after the failure: errno %d", r.errno)
		}
	}
}

func TestAFileThatIsCutShortFailsReadsOrItsConnectionButNeverLies(t *testing.T) {
	d := newDisk("d", bytes.Repeat([]byte{7}, 1<<20)).onFile(t)
	d.onRead = func(ctx context.Context, off, n int64) error { return errors.New("unexpected end") }
	if err := os.Truncate(d.file.Name(), 100_000); err != nil {
		t.Fatal(err)
	}
	_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", true)
	for _, n := range []uint32{512, 200_000} {
		p.request(cmdRead, 0, 99_900, n)
		if r := p.answer(99_900, int(n)); r.errno != errnoIO {
			t.Errorf("%d bytes: errno %d", n, r.errno)
		}
	}
	p.request(cmdRead, 0, 0, 90_000)
	if r := p.answer(0, 90_000); r.errno != 0 || r.data[80_000] != 7 {
		t.Errorf("errno %d", r.errno)
	}
}

func TestExtentsThatMakeNoSenseHarmNothing(t *testing.T) {
	for name, extents := range map[string][]formats.Extent{
		"none":          {},
		"too short":     {{Off: 0, Len: 5000}},
		"too long":      {{Off: 0, Len: 1 << 40}},
		"empty":         {{Off: 0, Len: 0}, {Off: 0, Len: 0}},
		"negative":      {{Off: 0, Len: -5}},
		"elsewhere":     {{Off: 1 << 20, Len: 1 << 20}},
		"with a gap":    {{Off: 0, Len: 4096}, {Off: 8192, Len: 1 << 20}},
		"twice as much": {{Off: 0, Len: 1 << 19, Kind: formats.Data, N: 1 << 19}, {Off: 0, Len: 1 << 19, Kind: formats.Data, N: 1 << 19}},
	} {
		d := newDisk("d", bytes.Repeat([]byte{7}, 1<<20))
		d.extents = extents
		_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
		p := open(t, unix, "d", true)
		p.request(cmdRead, 0, 0, 1<<20)
		if r := p.answer(0, 1<<20); r.errno != errnoIO {
			t.Errorf("%s: errno %d", name, r.errno)
		}
		p.request(cmdBlockStatus, 0, 0, 1<<20)
		sum := uint32(0)
		r := p.answer(0, 0)
		for i := 0; i < len(r.status); i += 2 {
			sum += r.status[i]
		}
		if sum > 1<<20 || sum == 0 && r.errno != errnoIO {
			t.Errorf("%s: errno %d, status %v", name, r.errno, r.status)
		}
	}
}
