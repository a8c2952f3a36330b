package main

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/backends/localfile"
	"glanced/cmd/glancectl/internal/glanceapi"
)

func imageUploadCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "upload", Usage: "give a queued image its data", ArgsUsage: "ID|NAME FILE",
		Description: "FILE - is standard input." + examples(
			"glancectl image upload later disk.qcow2",
			"glancectl image upload later disk.qcow2 --store far",
			"zstd -dc disk.raw.zst | glancectl image upload later -"),
		Flags: append([]cli.Flag{storeFlag()}, progressFlags()...),
		Action: asking(s, []string{"ID|NAME", "FILE"}, func(c *cli.Context, args []string, _ *printer, api *glanceapi.Client) error {
			data, err := openData(args[1], s)
			if err != nil {
				return err
			}
			defer data.Close()
			img, err := findImage(c.Context, api, args[0])
			if err != nil {
				return err
			}
			if err := upload(c, s, api, img.ID(), data); err != nil {
				return fmt.Errorf("the upload failed: %w", err)
			}
			fmt.Fprintf(s.err, "image %s uploaded\n", img.ID())
			return nil
		}),
	}
}

func imageDownloadCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "download", Usage: "fetch an image's data as it is stored, verified, or its disk in another format", ArgsUsage: "ID|NAME",
		Description: "The data is checked against the image's hash (os_hash_value, else checksum). FILE gets its name\n" +
			"only when all is there and right; runs of zeros in it become holes. What goes to standard output\n" +
			"has gone when a wrong hash shows: look at the exit code.\n" +
			"With --as the server writes the guest disk in another format while it sends it. The stored hash is\n" +
			"not of that, so only its length and its format are checked." + examples(
			"glancectl image download debian-12 --file debian-12.qcow2",
			"glancectl image download debian-12 --as raw --file /dev/vg0/debian",
			"glancectl image download debian-12 | sha512sum"),
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "file", Usage: "write to `FILE` (-, the default = standard output)", Value: "-"},
			&cli.StringFlag{Name: "as", Usage: "fetch the guest disk as `raw|qcow2|vmdk` (unset = the data as it is stored)"},
		}, progressFlags()...),
		Action: asking(s, []string{"ID|NAME"}, func(c *cli.Context, args []string, _ *printer, api *glanceapi.Client) error {
			return downloadImage(c, s, api, args[0])
		}),
	}
}

func downloadImage(c *cli.Context, s streams, api *glanceapi.Client, name string) error {
	file := c.String("file")
	if file == "-" && isTerminal(s.out) {
		return usagef(c, "standard output is a terminal: name a file with --file, or pipe the data on")
	}
	if c.IsSet("as") {
		if err := writable(c, "as"); err != nil {
			return err
		}
	}
	img, err := findImage(c.Context, api, name)
	if err != nil {
		return err
	}
	if file == "-" {
		return fetch(c, s, api, img, s.out)
	}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return downloadInto(c, s, api, img, file)
	}
	out, err := createFile(file)
	if err != nil {
		return err
	}
	defer out.discard()
	w := localfile.NewSparseWriter(out.File, nil)
	if err := fetch(c, s, api, img, w); err != nil {
		return err
	}
	if err := w.Finish(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := out.commit(); err != nil {
		return err
	}
	fmt.Fprintf(s.err, "image %s is in %s\n", img.ID(), printable(file))
	return nil
}

// downloadInto writes to what is there and no regular file, a disk or a pipe,
// which a rename would replace.
func downloadInto(c *cli.Context, s streams, api *glanceapi.Client, img glanceapi.Image, file string) error {
	out, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := fetch(c, s, api, img, out); err != nil {
		return err
	}
	// A pipe or a character device has nothing to sync.
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0 {
		if err := out.Sync(); err != nil {
			return fmt.Errorf("write %s to disk: %w", file, err)
		}
	}
	return out.Close()
}

// fetch copies img's data to w and fails unless its length and hash are those of
// the image's record, or, with --as, those of an image in that format.
func fetch(c *cli.Context, s streams, api *glanceapi.Client, img glanceapi.Image, w io.Writer) error {
	body, length, ok, err := api.Download(c.Context, img.ID(), c.String("as"))
	if err != nil {
		return fmt.Errorf("download image %s: %w", img.ID(), err)
	}
	if !ok {
		return &advised{fmt.Errorf("image %s has no data yet (its status is %s)", img.ID(), img.String("status")),
			"Give it data with: glancectl image upload " + img.ID() + " FILE"}
	}
	defer body.Close()
	if as := c.String("as"); as != "" {
		return fetchAs(c, s, img, as, body, length, w)
	}
	size, known := img.Int("size")
	if length < 0 && known {
		length = size
	}
	check := newVerifier(img)
	if check == nil {
		fmt.Fprintln(s.err, "glancectl: the server gives no hash of this image: the data will not be verified")
	}
	bar := startProgress(c, s, "download", length)
	defer bar.finish()
	got, err := io.Copy(check.and(w), bar.reader(body))
	if err != nil {
		if c.Context.Err() != nil {
			err = c.Context.Err()
		}
		return fmt.Errorf("download image %s: after %d bytes: %w", img.ID(), got, err)
	}
	if known && got != size {
		return &advised{fmt.Errorf("download image %s: got %d bytes of %d", img.ID(), got, size), "The transfer was cut short: try again."}
	}
	return check.verify(img.ID())
}

// verifier hashes what is downloaded. A nil one lets all pass.
type verifier struct {
	algo, want string
	hash       hash.Hash
}

// newVerifier hashes with the image's secure hash if we know its algorithm, else
// with md5; nil where the record has neither.
func newVerifier(img glanceapi.Image) *verifier {
	want := strings.ToLower(img.String("os_hash_value"))
	algo := strings.ToLower(img.String("os_hash_algo"))
	known := map[string]func() hash.Hash{
		"sha512": sha512.New, "sha384": sha512.New384, "sha256": sha256.New, "sha224": sha256.New224, "sha1": sha1.New, "md5": md5.New,
	}
	if f := known[algo]; f != nil && want != "" {
		return &verifier{algo, want, f()}
	}
	if want = strings.ToLower(img.String("checksum")); want != "" {
		return &verifier{"md5", want, md5.New()}
	}
	return nil
}

// and is a writer to w that is hashed too.
func (v *verifier) and(w io.Writer) io.Writer {
	if v == nil {
		return w
	}
	return io.MultiWriter(w, v.hash)
}

var errHash = errors.New("the data is not what was stored")

func (v *verifier) verify(id string) error {
	if v == nil {
		return nil
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
		return &advised{fmt.Errorf("download image %s: %w: its %s is %s, and should be %s", id, errHash, v.algo, got, v.want),
			"Nothing was kept of it. Try again; if it fails again, the stored image is damaged."}
	}
	return nil
}
