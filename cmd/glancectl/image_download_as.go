package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

// errNotConverted is an answer that cannot be the disk in the format asked for: of
// a server that does not know the question, and sends what is stored.
var errNotConverted = errors.New("the server did not convert it")

// magics are what the formats that a server converts to begin with.
var magics = map[string]string{toQCOW2: "QFI\xfb", toVMDK: "KDMV"}

// fetchAs copies an image that the server makes as it sends it, of length bytes
// (-1 = not known), to w. Its hash is nowhere: what can be checked is that it has
// the length that was announced and begins as its format does; a raw disk, that
// it is as long as the disk of the image's record.
func fetchAs(c *cli.Context, s streams, img glanceapi.Image, as string, body io.Reader, length int64, w io.Writer) error {
	fail := func(format string, args ...any) error {
		return &advised{fmt.Errorf("download image %s as %s: %w: %s", img.ID(), as, errNotConverted, fmt.Sprintf(format, args...)),
			"Fetch it as it is stored, without --as, and write it with: glancectl disk convert --to " + as + " FILE OUT"}
	}
	virtual, known := img.Int("virtual_size")
	known = known && as == toRaw
	if known && length >= 0 && length != virtual {
		return fail("it announces %d bytes for a disk of %d", length, virtual)
	}
	magic := magics[as]
	head := make([]byte, len(magic))
	n, err := io.ReadFull(body, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("download image %s: %w", img.ID(), err)
	}
	if string(head[:n]) != magic {
		return fail("what it sends does not begin like %s", as)
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	bar := startProgress(c, s, "download", length)
	defer bar.finish()
	bar.Update(int64(n))
	got, err := io.Copy(w, bar.reader(body))
	got += int64(n)
	if err != nil {
		if c.Context.Err() != nil {
			err = c.Context.Err()
		}
		return fmt.Errorf("download image %s as %s: after %d bytes: %w", img.ID(), as, got, err)
	}
	if known && got != virtual {
		return fail("it sent %d bytes of a disk of %d", got, virtual)
	}
	fmt.Fprintf(s.err, "glancectl: converted by the server: the data is not verified against the stored hash\n")
	return nil
}
