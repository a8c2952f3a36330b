package s3

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A connection fails when no byte has moved for as long as stallTime, in whichever
// direction, and however long it has moved bytes before.
func TestAConnectionThatStallsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := &stallConn{ours, stallTime}
		go func() { // a slow server, an hour long, which then falls silent
			for range 120 {
				time.Sleep(stallTime - time.Second)
				theirs.Write([]byte{1})
			}
		}()
		began := time.Now()
		for range 120 {
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		began = time.Now()
		_, err := c.Read(make([]byte, 1))
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took != stallTime {
			t.Errorf("it was silent for %v: %v", took, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := &stallConn{ours, stallTime}
		go func() { // it takes a piece at a time
			for range 10 {
				time.Sleep(stallTime - time.Second)
				io.ReadFull(theirs, make([]byte, 64<<10))
			}
		}()
		began := time.Now()
		n, err := c.Write(make([]byte, 20*64<<10))
		if took := time.Since(began); n != 10*64<<10 || !errors.Is(err, os.ErrDeadlineExceeded) || took != 10*(stallTime-time.Second)+stallTime {
			t.Errorf("%d bytes were taken in %v: %v", n, took, err)
		}
	})
}
