package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
	"glanced/formats"
	"glanced/formats/all"
)

// cleanupTimeout is how long an interrupted create may take to delete its record.
const cleanupTimeout = 15 * time.Second

func imageCreateCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "create an image, with its data or without", ArgsUsage: " ",
		Description: "With --file the data is uploaded at once; without --disk-format the format is found out\n" +
			"from the data. With --location nothing is uploaded: the server reads the data where it lies, with a\n" +
			"store of type http, and --disk-format is needed; that is for administrators, on the control socket.\n" +
			"A password in the URL can be seen by who lists this machine's processes: --location @FILE reads it\n" +
			"from a file. If either fails, the record that was made for it is deleted again." + examples(
			"glancectl image create --name debian-12 --visibility public --file debian-12.qcow2",
			"glancectl image create --name golden --file disk.vmdk --property os_distro=debian --tag lts",
			"xz -dc disk.raw.xz | glancectl image create --name piped --disk-format raw --file -",
			"glancectl image create --name mirrored --disk-format qcow2 --location https://mirror.example.org/debian-12.qcow2",
			"glancectl image create --name later --disk-format qcow2 --container-format bare"),
		Flags: append(append(imageFlags(),
			&cli.StringFlag{Name: "id", Usage: "`UUID` of the image instead of a random one"},
			&cli.StringFlag{Name: "file", Usage: "upload the data in `FILE` (- = standard input)"},
			&cli.StringFlag{Name: "location", Usage: "the data stays at `URL`, and is read there (@FILE = the URL is in FILE)"},
			storeFlag(),
			&cli.BoolFlag{Name: "keep", Usage: "keep the record when the upload fails"},
		), progressFlags()...),
		Action: asking(s, nil, func(c *cli.Context, _ []string, p *printer, api *glanceapi.Client) error {
			return createImage(c, s, p, api)
		}),
	}
}

// storeFlag is of the commands that upload.
func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", Usage: "keep the data in the store `ID` (unset = the default one; see glancectl store list)"}
}

func createImage(c *cli.Context, s streams, p *printer, api *glanceapi.Client) error {
	set := setFields(c)
	props, err := properties(c)
	if err != nil {
		return err
	}
	for k, v := range props {
		set[k] = v
	}
	if tags := c.StringSlice("tag"); len(tags) > 0 {
		set["tags"] = tags
	}
	if id := c.String("id"); id != "" {
		if _, err := uuid.Parse(id); err != nil {
			return usagef(c, "--id %q is not a UUID", id)
		}
		set["id"] = id
	}
	switch {
	case c.Bool("keep") && !c.IsSet("file"):
		return usagef(c, "--keep says what to do when the upload of --file fails; there is no --file")
	case c.IsSet("store") && !c.IsSet("file") && !c.IsSet("location"):
		return usagef(c, "--store says where the data of --file goes, or which store reads --location; there is neither")
	case c.IsSet("location"):
		return createAt(c, p, api, set)
	}
	if !c.IsSet("file") {
		img, err := api.Create(c.Context, set)
		if err != nil {
			return fmt.Errorf("create the image: %w", err)
		}
		return printImage(p, img)
	}

	data, err := openData(c.String("file"), s)
	if err != nil {
		return err
	}
	defer data.Close()
	if _, ok := set["container_format"]; !ok {
		set["container_format"] = "bare"
	}
	if _, ok := set["disk_format"]; !ok {
		format, err := data.guess()
		if err != nil {
			return err
		}
		fmt.Fprintf(s.err, "disk format %s, by the content of %s; --disk-format says otherwise\n", format, printable(data.name))
		set["disk_format"] = format
	}
	img, err := api.Create(c.Context, set)
	if err != nil {
		return fmt.Errorf("create the image: %w", err)
	}
	if err := upload(c, s, api, img.ID(), data); err != nil {
		return takeBack(c, api, img, fmt.Errorf("the upload failed: %w", err))
	}
	if img, err = api.Get(c.Context, img.ID()); err != nil {
		return fmt.Errorf("the image was uploaded, but cannot be shown: %w", err)
	}
	return printImage(p, img)
}

// createAt makes an image whose data stays where it lies.
func createAt(c *cli.Context, p *printer, api *glanceapi.Client, set map[string]any) error {
	switch {
	case c.IsSet("file"):
		return usagef(c, "--file uploads the data, --location leaves it where it is; give one of them")
	case set["disk_format"] == nil:
		return usagef(c, "--location needs --disk-format: the data is not here to look at")
	case !api.OverSocket():
		return usagef(c, "--location is for administrators, on the control socket; %s is not one", api.Where())
	}
	location := c.String("location")
	if file, ok := strings.CutPrefix(location, "@"); ok {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read the location: %w", err)
		}
		location = strings.TrimSpace(string(text))
	}
	if _, ok := set["container_format"]; !ok {
		set["container_format"] = "bare"
	}
	img, err := api.Create(c.Context, set)
	if err != nil {
		return fmt.Errorf("create the image: %w", err)
	}
	if err := api.SetLocation(c.Context, img.ID(), location, c.String("store")); err != nil {
		return takeBack(c, api, img, fmt.Errorf("register the location: %w", err))
	}
	if img, err = api.Get(c.Context, img.ID()); err != nil {
		return fmt.Errorf("the location was registered, but the image cannot be shown: %w", err)
	}
	return printImage(p, img)
}

// takeBack deletes the record whose upload failed, even when the user interrupts,
// and tells so along with why.
func takeBack(c *cli.Context, api *glanceapi.Client, img glanceapi.Image, why error) error {
	if c.Bool("keep") {
		fmt.Fprintf(c.App.ErrWriter, "image %s is kept; try again with: glancectl image upload %s FILE\n", img.ID(), img.ID())
		return why
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), cleanupTimeout)
	defer cancel()
	err := error(nil)
	if img["protected"] == true {
		_, err = api.Update(ctx, img.ID(), []glanceapi.Op{{Op: "replace", Path: glanceapi.Pointer("protected"), Value: false}})
	}
	if err == nil {
		err = api.Delete(ctx, img.ID())
	}
	if err != nil {
		fmt.Fprintf(c.App.ErrWriter, "image %s, made for this, could not be deleted again: %s\n", img.ID(), printable(err.Error()))
		return why
	}
	fmt.Fprintf(c.App.ErrWriter, "image %s, made for this, was deleted again\n", img.ID())
	return why
}

// imageData is what shall be uploaded: a file, or standard input.
type imageData struct {
	io.Reader
	io.Closer
	name string
	size int64 // bytes; -1 = unknown
	peek *bufio.Reader
}

// openData opens the file called name ("-" = standard input) for an upload.
func openData(name string, s streams) (*imageData, error) {
	if name == "-" {
		if isTerminal(s.in) {
			return nil, errors.New("standard input is a terminal: pipe the data in, or name a file")
		}
		b := bufio.NewReaderSize(s.in, formats.ProbeLen)
		return &imageData{Reader: b, Closer: io.NopCloser(nil), name: "standard input", size: -1, peek: b}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder, not a disk image", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	size := int64(-1) // a pipe
	if info.Mode().IsRegular() || info.Mode()&os.ModeDevice != 0 {
		if size, err = f.Seek(0, io.SeekEnd); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("find the size of %s: %w", name, err)
		}
	}
	b := bufio.NewReaderSize(f, 1<<20)
	return &imageData{Reader: b, Closer: f, name: name, size: size, peek: b}, nil
}

// guess is the disk format that the data begins like; raw where it is like none.
func (d *imageData) guess() (string, error) {
	head, err := d.peek.Peek(formats.ProbeLen)
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read the beginning of %s: %w", d.name, err)
	}
	format, err := formats.Detect(all.Drivers(), head)
	if err != nil {
		return "", &advised{fmt.Errorf("the format of %s: %w", d.name, err), "The daemon takes it for a raw disk only, with --disk-format raw."}
	}
	return format, nil
}

// upload sends data to the image, with a progress bar.
func upload(c *cli.Context, s streams, api *glanceapi.Client, id string, data *imageData) error {
	bar := startProgress(c, s, "upload", data.size)
	defer bar.finish()
	return api.Upload(c.Context, id, c.String("store"), bar.reader(data), data.size)
}
