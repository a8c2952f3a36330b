package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// asProgram makes the test binary behave as glancectl, for tests that need a process.
const asProgram = "GLANCECTL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asMeter) != "" {
		runMeter()
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	for _, name := range []string{"GLANCED_SOCKET", "GLANCED_URL", "GLANCED_TOKEN", "OS_TOKEN", "OS_IMAGE_URL"} {
		os.Unsetenv(name)
	}
	code := m.Run()
	os.RemoveAll(variants.dir)
	os.Exit(code)
}

// result is what a run of the program left.
type result struct {
	t        *testing.T
	args     []string
	code     int
	out, err string
}

// glancectl runs the program in this process with input on standard input.
func glancectl(t *testing.T, input string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"glancectl"}, args...), streams{in: strings.NewReader(input), out: &out, err: &errs})
	return result{t, args, code, out.String(), errs.String()}
}

// do runs the program against g's control socket.
func (g *server) do(args ...string) result {
	g.t.Helper()
	return glancectl(g.t, "", append([]string{"--socket", g.socket}, args...)...)
}

// ok fails the test unless the run was a success; it returns stdout.
func (r result) ok() string {
	r.t.Helper()
	if r.code != exitDone {
		r.t.Fatalf("%q: exit code %d\n%s", r.args, r.code, r.err)
	}
	return r.out
}

// fails fails the test unless the run ended with code and said all of parts on
// stderr, and nothing on stdout.
func (r result) fails(code int, parts ...string) {
	r.t.Helper()
	if r.code != code {
		r.t.Fatalf("%q: exit code %d, want %d\n%s%s", r.args, r.code, code, r.out, r.err)
	}
	if r.out != "" {
		r.t.Errorf("%q: a failure printed on stdout: %s", r.args, r.out)
	}
	for _, part := range parts {
		if !strings.Contains(r.err, part) {
			r.t.Errorf("%q: %q does not say %q", r.args, r.err, part)
		}
	}
}

// decode reads JSON output.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("the output is not JSON: %v\n%s", err, text)
	}
	return v
}

func TestOptionsMayStandAnywhere(t *testing.T) {
	app := newApp(streams{})
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"image list", "image list"},
		{"image list -f json", "-f json image list"},
		{"image -f json list -c id --column=name", "-f json -c id --column=name image list"},
		{"image show x --socket s -f value", "--socket s -f value image show -- x"},
		{"--socket s image download x --file out --progress", "--socket s image download --file out --progress -- x"},
		{"image update x --name y z --protected=false", "image update --name y --protected=false -- x z"},
		{"image update --protected x", "image update --protected -- x"},
		{"image upload x -", "image upload -- x -"},
		{"image upload x --progress -", "image upload --progress -- x -"},
		{"image download x --file -", "image download --file - -- x"},
		{"image show -- -f json", "image show -- -f json"},
		{"image show -- --help", "image show -- --help"},
		{"image show help", "image show -- help"},
		{"image delete image list", "image delete -- image list"},
		{"disk convert in out --format raw --force", "disk convert --format raw --force -- in out"},
		{"image list --limit -1", "image list --limit -1"},
		{"image show x --bogus y", "image show --bogus -- x y"},
		{"image list --name", "image list --name"},
		{"bogus -f json", "-f json -- bogus"},
		{"help", "--help"},
		{"help image create", "image create --help"},
		{"image help create", "image create --help"},
		{"image create --help", "image create --help"},
		{"--version", "--version"},
		{"image list --f --generate-bash-completion", "image list --f --generate-bash-completion"},
		{"image show x --generate-bash-completion", "image show x --generate-bash-completion"},
	} {
		got := reorder(app, append([]string{"glancectl"}, strings.Fields(tt.in)...))
		if want := append([]string{"glancectl"}, strings.Fields(tt.want)...); !slices.Equal(got, want) {
			t.Errorf("%q became %q, want %q", tt.in, got, want)
		}
	}
}

func TestWrongUsageExitsWithTwoBeforeAnythingIsAsked(t *testing.T) {
	g := newServer(t)
	for _, tt := range []struct{ args, says string }{
		{"", "needs a command: image"},
		{"image", "needs a command: create"},
		{"bogus", `no command "bogus"`},
		{"image bogus x", `no command "bogus"`},
		{"image list --bogus", "bogus"},
		{"image list --limit many", "limit"},
		{"image list --limit -1", "below 0"},
		{"image list extra", `unexpected argument "extra"`},
		{"image list -f xml", "table, json, value"},
		{"image list --property a", "NAME=VALUE"},
		{"image list --property os_hidden=true", "no property"},
		{"image list --all --hidden", "--hidden"},
		{"image list --name", "name"},
		{"image show", "ID|NAME is missing"},
		{"image show a b", `unexpected argument "b"`},
		{"image delete", "ID|NAME is missing"},
		{"image create --id 7", "UUID"},
		{"image create x", `unexpected argument "x"`},
		{"image create --keep", "--file"},
		{"image create --store web", "--location"},
		{"image create --location http://h/disk", "--disk-format"},
		{"image create --location http://h/disk --disk-format raw --file x", "give one of them"},
		{"image create --property name=x", "use --name"},
		{"image create --property os_hidden=true", "use --hidden"},
		{"image create --property status=active", "only the server sets"},
		{"image create --property a=1 --property a=2", "twice"},
		{"image create --min-disk big", "min-disk"},
		{"image create --store far", "--file"},
		{"store check", "ID is missing"},
		{"store", "list, check"},
		{"image update x", "nothing to change"},
		{"image update x --property a=1 --remove-property a", "both set and removed"},
		{"image update x --remove-property name", "cannot be removed"},
		{"image upload x", "FILE is missing"},
		{"quota set p", "nothing to set"},
		{"quota set p --image-count-total -1", "below 0"},
		{"quota show", "PROJECT is missing"},
		{"status now", "unexpected argument"},
		{"completion tcsh", "bash, zsh, fish"},
		{"disk info", "FILE is missing"},
		{"disk convert a", "OUT is missing"},
		{"disk info a --format floppy", `"floppy" is not one of`},
		{"image list --url http://127.0.0.1:1", "--socket and --url"},
		{"image list --token t", "token is for --url"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			g.t = t
			g.do(strings.Fields(tt.args)...).fails(exitUsage, tt.says, "--help")
		})
	}
	if len(g.asked("")) > 0 {
		t.Errorf("wrong usage reached the server: %q", g.asked(""))
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	app := newApp(streams{})
	var walk func(path []string, list []*cli.Command)
	walk = func(path []string, list []*cli.Command) {
		for _, c := range list {
			words := append(slices.Clone(path), c.Name)
			long := glancectl(t, "", append(words, "--help")...).ok()
			for _, part := range []string{c.Usage, "Examples:", "glancectl " + strings.Join(words, " ")} {
				if !strings.Contains(long, part) {
					t.Errorf("the help of %q lacks %q:\n%s", words, part, long)
				}
			}
			if byHelp := glancectl(t, "", append([]string{"help"}, words...)...).ok(); byHelp != long {
				t.Errorf("help %q and --help differ", words)
			}
			walk(words, c.Subcommands)
		}
	}
	walk(nil, app.Commands)
	if top := glancectl(t, "", "help").ok(); !strings.Contains(top, "--socket") || !strings.Contains(top, "Exit codes") {
		t.Errorf("the program's help lacks its options:\n%s", top)
	}
	if v := glancectl(t, "", "--version").ok(); !strings.HasPrefix(v, "glancectl version ") {
		t.Errorf("--version says %q", v)
	}
}

func TestEnvironmentNamesTheServer(t *testing.T) {
	g := newServer(t)
	g.add("one", nil, nil)
	tokenFile := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(tokenFile, []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"GLANCED_SOCKET":            {env: map[string]string{"GLANCED_SOCKET": g.socket}},
		"GLANCED_URL":               {env: map[string]string{"GLANCED_URL": g.url, "GLANCED_TOKEN": testToken}},
		"OS_IMAGE_URL":              {env: map[string]string{"OS_IMAGE_URL": g.url + "/v2/", "OS_TOKEN": testToken}},
		"--url beats the socket":    {env: map[string]string{"GLANCED_SOCKET": "/nowhere"}, args: []string{"--url", g.url, "--token", testToken}},
		"--token-file":              {args: []string{"--url", g.url, "--token-file", tokenFile}},
		"--socket beats all others": {env: map[string]string{"GLANCED_URL": "http://127.0.0.1:1", "OS_TOKEN": "x"}, args: []string{"--socket", g.socket}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if out := glancectl(t, "", append(tt.args, "image", "list", "-f", "value", "-c", "name")...).ok(); out != "one\n" {
				t.Errorf("listed %q", out)
			}
		})
	}
	t.Run("./var/control.sock", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "var"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(g.socket, filepath.Join(dir, "var", "control.sock")); err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		glancectl(t, "", "image", "list").ok()
	})
}

// process is the program as a process of its own.
func process(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	// The race detector waits a second at the end of a process unless told not to.
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

func TestCompletionOffersWhatMayFollow(t *testing.T) {
	for _, tt := range []struct{ words, want string }{
		{"", "cache completion disk exports image mounts quota status store"},
		{"cache", "evict list pin prefetch stat"},
		{"image", "create deactivate delete download held list reactivate show update upload"},
		{"-f json quota", "set show unset"},
		{"image create --name x --prog", "--progress"},
		{"image show somename --he", "--help"},
	} {
		out, err := process(t, append(strings.Fields(tt.words), completionFlag)...).Output()
		if err != nil {
			t.Fatalf("%q: %v", tt.words, err)
		}
		got := strings.Fields(string(out))
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("after %q: %q, want %q", tt.words, got, tt.want)
		}
	}
}

func TestCompletionScriptWorksInBash(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(dir, "glancectl")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", `eval "$(glancectl completion bash)"; COMP_WORDS=(glancectl image up); COMP_CWORD=2; _glancectl; echo "${COMPREPLY[@]}"`)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0", "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "update upload\n" {
		t.Errorf("bash completes %q, %v", out, err)
	}
	for shell, part := range map[string]string{"zsh": "compdef _glancectl", "fish": "complete -c glancectl"} {
		if out := glancectl(t, "", "completion", shell).ok(); !strings.Contains(out, part) || !strings.Contains(out, completionFlag) {
			t.Errorf("completion %s: %q", shell, out)
		}
	}
}
