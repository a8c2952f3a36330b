package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionFlag is what the completion scripts append; urfave/cli wants it last.
const completionFlag = "--generate-bash-completion"

// level is the program or one command of the command line, with its options.
type level struct {
	name  string // "" = the program
	flags []cli.Flag
	given []string // the options found for it, values included
}

// reorder moves options to where urfave/cli v2 looks for them: it stops at the
// first argument, takes an option only right after the command that defines it,
// and reads an argument that is spelled like a command as one. Here an option
// may stand anywhere, global ones too; what follows -- is arguments only. "help
// image create" becomes "image create --help".
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	rest := args[1:]
	completing := len(rest) > 0 && rest[len(rest)-1] == completionFlag
	var begun []string // the option that is being typed
	if completing {
		rest = rest[:len(rest)-1]
		if n := len(rest); n > 0 && strings.HasPrefix(rest[n-1], "-") {
			rest, begun = rest[:n-1], rest[n-1:]
		}
	}
	levels := []level{{flags: slices.Concat(app.Flags, []cli.Flag{cli.VersionFlag, cli.HelpFlag})}}
	commands := app.Commands
	var positional []string
	help, literal := false, false
	for i := 0; i < len(rest); i++ {
		arg := rest[i]
		switch {
		case literal || arg == "-" || !strings.HasPrefix(arg, "-"):
			if !literal && len(positional) == 0 {
				if arg == "help" && len(commands) > 0 {
					help = true
					continue
				}
				if sub := named(commands, arg); sub != nil {
					levels = append(levels, level{name: arg, flags: slices.Concat(sub.Flags, []cli.Flag{cli.HelpFlag})})
					commands = sub.Subcommands
					continue
				}
			}
			positional = append(positional, arg)
		case arg == "--":
			literal = true
		default:
			owner, takesValue := findFlag(levels, arg)
			owner.given = append(owner.given, arg)
			if takesValue && i+1 < len(rest) {
				i++
				owner.given = append(owner.given, rest[i])
			}
		}
	}
	if help {
		last := &levels[len(levels)-1]
		last.given = append(last.given, "--help")
	}
	out := []string{args[0]}
	for _, l := range levels {
		if l.name != "" {
			out = append(out, l.name)
		}
		out = append(out, l.given...)
	}
	if completing {
		return slices.Concat(out, positional, begun, []string{completionFlag})
	}
	if len(positional) > 0 {
		out = append(append(out, "--"), positional...)
	}
	return out
}

// findFlag is the innermost level that knows the option arg, and whether the next
// argument is its value. An option that nobody knows goes to the innermost level,
// which will refuse it.
func findFlag(levels []level, arg string) (owner *level, takesValue bool) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for i := len(levels) - 1; i >= 0; i-- {
		for _, f := range levels[i].flags {
			if slices.Contains(f.Names(), name) {
				_, isBool := f.(*cli.BoolFlag)
				return &levels[i], !isBool && !hasValue
			}
		}
	}
	return &levels[len(levels)-1], false
}

func named(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}
