package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"glanced/backends/localfile"
	"glanced/formats/encode"
	"glanced/formats/engine"
)

// copyPiece is how much is moved at once, bytes.
const copyPiece = 1 << 20

// copyToFile writes img into f, a new file of its size, a piece on each core. Runs
// of zeros are left out.
func copyToFile(ctx context.Context, f *os.File, img encode.Image, bar *progress) error {
	group, ctx := errgroup.WithContext(ctx)
	pieces := make(chan int64)
	group.Go(func() error {
		defer close(pieces)
		for off := int64(0); off < img.Size(); off += copyPiece {
			select {
			case pieces <- off:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, copyPiece)
			for off := range pieces {
				p := buf[:min(copyPiece, img.Size()-off)]
				if err := img.ReadAt(ctx, p, off); err != nil {
					return err
				}
				if err := localfile.WriteSparse(f, p, off, sparseUnit); err != nil {
					return fmt.Errorf("write %s: %w", f.Name(), err)
				}
				bar.Update(int64(len(p)))
			}
			return nil
		})
	}
	return group.Wait()
}

// sparseUnit is the length of zeros that is left out, bytes.
const sparseUnit = 64 << 10

// copyInOrder writes img to w, while the next pieces are read, one on each core
// and one more.
func copyInOrder(ctx context.Context, w io.Writer, img encode.Image, bar *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type piece struct {
		data []byte
		err  error
	}
	ahead := runtime.GOMAXPROCS(0) + 1
	queue := make(chan chan piece, ahead)
	free := make(chan []byte, ahead+2) // as many buffers as there are; who reads has one
	for range ahead + 2 {
		free <- make([]byte, copyPiece)
	}
	go func() {
		defer close(queue)
		for off := int64(0); off < img.Size(); off += copyPiece {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return
			}
			done := make(chan piece, 1)
			p := buf[:min(copyPiece, img.Size()-off)]
			go func() { done <- piece{p, img.ReadAt(ctx, p, off)} }()
			select {
			case queue <- done:
			case <-ctx.Done():
				<-done
				return
			}
		}
	}()
	var failed error
	for done := range queue { // to its end: no read is left behind
		p := <-done
		if failed == nil {
			failed = p.err
		}
		if failed == nil {
			_, failed = w.Write(p.data)
		}
		if failed != nil {
			cancel()
		}
		bar.Update(int64(len(p.data)))
		free <- p.data[:copyPiece]
	}
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}

// countedDisk tells a progress bar what is read of a disk.
type countedDisk struct {
	*engine.Disk
	bar *progress
}

func (d countedDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	err := d.Disk.ReadAt(ctx, p, off)
	if err == nil {
		d.bar.Update(int64(len(p)))
	}
	return err
}
