// Command glanced is the image service: it serves the catalog over HTTP (Images
// API v2), a control socket, NBD and a FUSE mount.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"
)

// errUsage marks errors of the command line and the configuration: exit code 2.
var errUsage = errors.New("usage")

func main() {
	app := &cli.App{
		Name:    "glanced",
		Usage:   "serve disk images over HTTP, NBD and a filesystem",
		Version: version(),
		Description: "Everything below one folder, on the default ports:\n\n" +
			"   glanced --dir ./var\n\n" +
			"With a configuration file (see contrib/glanced.toml):\n\n" +
			"   glanced --config /etc/glance/glanced.toml",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "TOML configuration `FILE`"},
			&cli.StringFlag{Name: "dir", Usage: "run on the embedded configuration with everything below `DIR`"},
			&cli.StringFlag{Name: "http", Usage: "HTTP listen `ADDR` instead of the configured one"},
			&cli.StringSliceFlag{Name: "nbd", Usage: "NBD TCP listen `ADDR` instead of the configured ones (repeatable)"},
		},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("%w: unexpected argument %q; see glanced --help", errUsage, c.Args().First())
			}
			return run(c.String("config"), c.String("dir"), c.String("http"), c.StringSlice("nbd"))
		},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return fmt.Errorf("%w: %v", errUsage, err) },
		ExitErrHandler: func(*cli.Context, error) {},
	}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "glanced:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// run reads the configuration, serves until SIGTERM or SIGINT, and re-reads on SIGHUP.
func run(configFile, dir, httpAddr string, nbdAddrs []string) error {
	load := func() (*config, error) {
		var cfg *config
		var err error
		switch {
		case (configFile == "") == (dir == ""):
			return nil, fmt.Errorf("%w: give either --config FILE or --dir DIR", errUsage)
		case dir != "":
			cfg, err = dirConfig(dir)
		default:
			cfg, err = loadConfig(configFile)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if err := cfg.override(httpAddr, nbdAddrs); err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		return cfg, nil
	}
	cfg, err := load()
	if err != nil {
		return err
	}

	// Signals are caught before anything exists that an early one would leave behind.
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	d, err := start(stop, cfg)
	if err != nil {
		return err
	}
	if dir != "" {
		d.welcome(os.Stdout)
	}
	for {
		select {
		case <-hup:
			d.reload(load)
		case err := <-d.failed:
			return errors.Join(err, d.stop())
		case <-stop.Done():
			cancel() // a second signal kills at once
			return d.stop()
		}
	}
}

// stamped is set by make: -ldflags '-X main.stamped=…'.
var stamped string

// version is what make, or else the go command, stamped into the program.
func version() string {
	if stamped != "" {
		return stamped
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
