package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"
)

func completionCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a script that completes glancectl's command line", ArgsUsage: "bash|zsh|fish",
		Description: "The script asks glancectl itself what may follow." + examples(
			"source <(glancectl completion bash)",
			"source <(glancectl completion zsh)",
			"glancectl completion fish | source"),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "bash|zsh|fish")
			if err != nil {
				return err
			}
			shells := []string{"bash", "zsh", "fish"}
			scripts := []string{bashCompletion, zshCompletion, fishCompletion}
			i := slices.Index(shells, args[0])
			if i < 0 {
				return usagef(c, "%q is not one of bash, zsh, fish", args[0])
			}
			_, err = fmt.Fprint(s.out, scripts[i])
			return err
		},
	}
}

// The scripts run the words before the cursor, and an option that has been begun,
// with the flag at which urfave/cli prints what may follow. Where it has no
// answer, files are offered.
const (
	bashCompletion = `_glancectl() {
    local word="${COMP_WORDS[COMP_CWORD]}"
    local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    [[ $word == -* ]] && words+=("$word")
    local answers
    answers=$("${words[@]}" --generate-bash-completion 2>/dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$answers" -- "$word")
}
complete -o default -F _glancectl glancectl
`
	zshCompletion = `#compdef glancectl
_glancectl() {
    local -a before answers
    before=("${(@)words[1,CURRENT-1]}")
    [[ $words[CURRENT] == -* ]] && before+=("$words[CURRENT]")
    answers=("${(@f)$("${before[@]}" --generate-bash-completion 2>/dev/null)}")
    if [[ -n "${answers[1]}" ]]; then
        _describe 'glancectl' answers
    else
        _files
    fi
}
compdef _glancectl glancectl
`
	fishCompletion = `function __glancectl_answers
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    string match -q -- '-*' $word; and set -a before $word
    $before --generate-bash-completion 2>/dev/null
end
complete -c glancectl -a '(__glancectl_answers)'
`
)
