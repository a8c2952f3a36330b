package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

// Where the daemon's control socket is: of `make run`, and of the packaged service.
const (
	localSocket  = "./var/control.sock"
	systemSocket = "/run/glance/control.sock"
)

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "socket", Usage: "control socket of glanced at `PATH` ($GLANCED_SOCKET)"},
		&cli.StringFlag{Name: "url", Usage: "Images API at `URL` instead of the socket ($GLANCED_URL, $OS_IMAGE_URL)"},
		&cli.StringFlag{Name: "token", Usage: "with --url: `TOKEN` to show ($GLANCED_TOKEN, $OS_TOKEN)"},
		&cli.StringFlag{Name: "token-file", Usage: "with --url: read the token from `FILE`"},
		&cli.StringFlag{Name: "output-format", Aliases: []string{"f"}, Value: "table", Usage: "print results as `table|json|value`"},
		&cli.StringSliceFlag{Name: "column", Aliases: []string{"c"}, Usage: "print only the field `COLUMN` (repeatable)"},
	}
}

// asking is the frame of a command that asks the daemon: do gets one argument for
// each name, the printer for the answer, and a client that is closed after it.
func asking(s streams, names []string, do func(c *cli.Context, args []string, p *printer, api *glanceapi.Client) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		args, err := arguments(c, names...)
		if err != nil {
			return err
		}
		p, err := newPrinter(c, s)
		if err != nil {
			return err
		}
		api, err := connect(c)
		if err != nil {
			return err
		}
		defer api.Close()
		return do(c, args, p, api)
	}
}

// connect is a client of the server that the options, else the environment, name.
func connect(c *cli.Context) (*glanceapi.Client, error) {
	socket, url := c.String("socket"), c.String("url")
	token, err := token(c)
	if err != nil {
		return nil, err
	}
	switch {
	case socket != "" && url != "":
		return nil, usagef(c, "--socket and --url name two servers; give one of them")
	case socket != "":
		return onSocket(c, socket)
	case url == "" && os.Getenv("GLANCED_SOCKET") != "":
		return onSocket(c, os.Getenv("GLANCED_SOCKET"))
	case url == "":
		url = os.Getenv("GLANCED_URL")
	}
	// A bare $OS_IMAGE_URL of another cloud's environment is not enough to turn away from the socket.
	if url == "" && token != "" {
		url = os.Getenv("OS_IMAGE_URL")
	}
	if url != "" {
		client, err := glanceapi.NewURL(url, token)
		if err != nil {
			return nil, usagef(c, "%v", err)
		}
		return client, nil
	}
	if _, err := os.Stat(localSocket); err == nil {
		return onSocket(c, localSocket)
	}
	return onSocket(c, systemSocket)
}

func onSocket(c *cli.Context, path string) (*glanceapi.Client, error) {
	if c.IsSet("token") || c.IsSet("token-file") {
		return nil, usagef(c, "a token is for --url; the socket %s knows its callers by their user", path)
	}
	return glanceapi.NewSocket(path), nil
}

// token is the token given by option, else by the environment, else "".
func token(c *cli.Context) (string, error) {
	file := c.String("token-file")
	switch {
	case c.IsSet("token") && file != "":
		return "", usagef(c, "give --token or --token-file, not both")
	case c.IsSet("token"):
		return c.String("token"), nil
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		t := strings.TrimSpace(string(b))
		if t == "" {
			return "", fmt.Errorf("read the token: %s is empty", file)
		}
		return t, nil
	}
	if t := os.Getenv("GLANCED_TOKEN"); t != "" {
		return t, nil
	}
	return os.Getenv("OS_TOKEN"), nil
}
