package distance

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A window of 1 MiB and a round trip of 20 ms are 50 MiB each second.
func TestAConnectionMovesAWindowInEachRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, window, trip = 16 << 20, 1 << 20, 20 * time.Millisecond
		data := make([]byte, size)
		rand.New(rand.NewSource(1)).Read(data)
		sum := sha256.New()
		var n atomic.Int64
		began := time.Now()
		if err := carry(sum, bytes.NewReader(data), always(trip), window, &n, t.FailNow); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if least := trip * (size/window - 1); took < least || took > least+2*trip {
			t.Errorf("%d windows took %v, want about %v", size/window, took, trip*size/window)
		}
		if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) || n.Load() != size {
			t.Errorf("%d bytes arrived, or others", n.Load())
		}
	})
}

func TestASmallMessageTakesHalfARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		arrived := make(chan time.Time, 1)
		done := make(chan error)
		go func() {
			done <- carry(writerFunc(func(p []byte) (int, error) {
				if len(p) > 0 {
					arrived <- time.Now()
				}
				return len(p), nil
			}), r, always(20*time.Millisecond), 1<<20, new(atomic.Int64), func() { t.Error("broken off") })
		}()
		time.Sleep(time.Second)
		sent := time.Now()
		w.Write([]byte("hello"))
		if took := (<-arrived).Sub(sent); took != 10*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		w.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestBothWaysAndTheirEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // sends back all that it gets, once it has got all
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				c.Write(all)
			}()
		}
	}()
	p, err := Listen(l.Addr().String(), time.Millisecond, 256<<10)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := make([]byte, 3<<20+17)
	rand.New(rand.NewSource(2)).Read(data)
	go func() {
		c.Write(data)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if n, up, down := p.Traffic(); n != 1 || up != int64(len(data)) || down != int64(len(data)) {
		t.Errorf("%d connections, %d bytes up, %d down", n, up, down)
	}

	idle, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	idle.Write([]byte("x"))
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	idle.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a closed proxy goes on")
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("a closed proxy keeps its connections open")
	}
}
