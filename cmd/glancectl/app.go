package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

// Exit codes, part of the command's contract.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are the process's standard streams; tests put buffers there.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is the program less the process: it runs args (args[0] is the program's
// name) and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	app := newApp(s)
	err := app.RunContext(ctx, reorder(app, args))
	if err == nil {
		return exitDone
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(s.err, "glancectl: %s\nSee: %s --help\n", printable(usage.msg), usage.command)
		return exitUsage
	}
	text := "glancectl: " + printable(err.Error())
	if ctx.Err() != nil {
		text = "glancectl: interrupted"
	}
	fmt.Fprintln(s.err, text)
	if hint := advice(err); hint != "" && ctx.Err() == nil {
		fmt.Fprintln(s.err, hint)
	}
	return exitFailed
}

// newApp is the tree of commands.
func newApp(s streams) *cli.App {
	app := &cli.App{
		Name:      "glancectl",
		HelpName:  "glancectl",
		Usage:     "manage the images of glanced, and look into disk images",
		UsageText: "glancectl [global options] COMMAND [options] [arguments]\n\nOptions may stand before or after the arguments; what follows -- is arguments only.",
		Description: "Without --socket or --url it asks $GLANCED_SOCKET, $GLANCED_URL or $OS_IMAGE_URL with $OS_TOKEN,\n" +
			"else ./var/control.sock if it is there, else " + systemSocket + ".\n\n" +
			"Exit codes: 0 done, 1 failed, 2 wrong usage." + examples(
			"glancectl status",
			"glancectl image create --name debian-12 --file debian-12.qcow2",
			"glancectl image list -f json",
			"glancectl help image create"),
		Version: version(),
		Flags:   globalFlags(),
		Commands: []*cli.Command{
			imageCommand(s), statusCommand(s), storeCommand(s), exportsCommand(s), mountsCommand(s),
			quotaCommand(s), cacheCommand(s), diskCommand(s), completionCommand(s),
		},
		Reader: s.in, Writer: s.out, ErrWriter: s.err,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true, // a property's value may hold commas
		HideHelpCommand:           true, // reorder makes "help X" of "X --help"
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              onUsageError,
		Action:                    groupAction,
	}
	forEachCommand(app.Commands, func(c *cli.Command) {
		c.HideHelpCommand = true
		c.OnUsageError = onUsageError
		tidyFlags(c.Flags)
		if len(c.Subcommands) > 0 {
			c.Action = groupAction
		}
	})
	return app
}

// tidyFlags leaves defaults out of the help that would say nothing, or wrongly
// that an update sets a field to 0.
func tidyFlags(flags []cli.Flag) {
	for _, f := range flags {
		switch f := f.(type) {
		case *cli.BoolFlag:
			f.DisableDefaultText = true
		case *cli.IntFlag:
			f.DefaultText = "unset"
		case *cli.Int64Flag:
			f.DefaultText = "unset"
		}
	}
}

func forEachCommand(list []*cli.Command, visit func(*cli.Command)) {
	for _, c := range list {
		visit(c)
		forEachCommand(c.Subcommands, visit)
	}
}

// usageError is a command line that asks for nothing that can be done.
type usageError struct {
	command string // as typed, for the pointer to its help
	msg     string
}

func (e *usageError) Error() string { return e.msg }

func usagef(c *cli.Context, format string, args ...any) error {
	return &usageError{command: c.Command.HelpName, msg: fmt.Sprintf(format, args...)}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef(c, "%v", err)
}

// groupAction is what a command that only holds commands does when none of them is named.
func groupAction(c *cli.Context) error {
	var names []string
	for _, sub := range c.Command.Subcommands {
		names = append(names, sub.Name)
	}
	have := strings.Join(names, ", ")
	if c.Args().Present() {
		return usagef(c, "%s has no command %q; it has: %s", c.Command.HelpName, c.Args().First(), have)
	}
	return usagef(c, "%s needs a command: %s", c.Command.HelpName, have)
}

// arguments are exactly one argument for each name, or a usage error that names
// what is missing or too much.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < len(names) {
		return nil, usagef(c, "%s is missing", names[len(args)])
	}
	if len(args) > len(names) {
		return nil, usagef(c, "unexpected argument %q", args[len(names)])
	}
	return args, nil
}

// examples is the tail of a command's description.
func examples(lines ...string) string {
	return "\n\nExamples:\n   " + strings.Join(lines, "\n   ")
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
