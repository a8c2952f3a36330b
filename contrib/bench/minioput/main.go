// Command minioput uploads a file to an S3 server with minio-go alone, while MD5 and
// SHA-512 of the same stream are made beside it: what an image service has to do at the
// least. It is what `bench stores` holds our uploads against, and a module of its own,
// so that the library is none of glanced's.
//
//	minioput HOST:PORT BUCKET KEY FILE     with ACCESS_KEY and SECRET_KEY in the environment
package main

import (
	"context"
	"crypto/md5"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: minioput HOST:PORT BUCKET KEY FILE")
		os.Exit(2)
	}
	if err := put(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "minioput:", err)
		os.Exit(1)
	}
}

func put(host, bucket, key, file string) error {
	client, err := minio.New(host, &minio.Options{
		Creds:        credentials.NewStaticV4(os.Getenv("ACCESS_KEY"), os.Getenv("SECRET_KEY"), ""),
		Region:       "us-east-1",
		BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	hashes := []*beside{newBeside(md5.New()), newBeside(sha512.New())}
	stream := &hashed{f, hashes} // without io.ReaderAt, as a stream of a client is
	if _, err := client.PutObject(context.Background(), bucket, key, stream, st.Size(), minio.PutObjectOptions{
		PartSize: 16 << 20, NumThreads: 4, ConcurrentStreamParts: true,
	}); err != nil {
		return err
	}
	for _, h := range hashes {
		fmt.Printf("%x\n", h.sum())
	}
	return nil
}

// pieceSize is how much is hashed at a time, bytes.
const pieceSize = 256 << 10

// piece is a part of the stream, which each of the hashes looks at.
type piece struct {
	b    []byte
	left atomic.Int32 // who has not looked at it yet
}

var pieces = sync.Pool{New: func() any { return &piece{b: make([]byte, pieceSize)} }}

// hashed hands what is read to the hashes, too.
type hashed struct {
	r      io.Reader
	hashes []*beside
}

func (h *hashed) Read(b []byte) (int, error) {
	n, err := h.r.Read(b[:min(len(b), pieceSize)])
	if n > 0 { // a copy, as the reader may use b again
		p := pieces.Get().(*piece)
		p.b = append(p.b[:0], b[:n]...)
		p.left.Store(int32(len(h.hashes)))
		for _, x := range h.hashes {
			x.pieces <- p
		}
	}
	return n, err
}

// beside hashes pieces on a goroutine of its own.
type beside struct {
	h      hash.Hash
	pieces chan *piece
	done   chan struct{}
}

func newBeside(h hash.Hash) *beside {
	b := &beside{h, make(chan *piece, 16), make(chan struct{})}
	go func() {
		defer close(b.done)
		for p := range b.pieces {
			b.h.Write(p.b)
			if p.left.Add(-1) == 0 {
				pieces.Put(p)
			}
		}
	}()
	return b
}

func (b *beside) sum() []byte {
	close(b.pieces)
	<-b.done
	return b.h.Sum(nil)
}
