package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

func quotaCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "quota", Usage: "show and set what a project may store",
		Description: "Limits that are not set for a project are those of the daemon's configuration; 0 is no limit." + examples(
			"glancectl quota show demo",
			"glancectl quota set demo --image-count-total 20 --image-size-total 102400"),
		Subcommands: []*cli.Command{quotaShowCommand(s), quotaSetCommand(s), quotaUnsetCommand(s)},
	}
}

func quotaShowCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "show a project's limits and usage", ArgsUsage: "PROJECT",
		Description: "image_count_total counts images, image_size_total their MiB." + examples(
			"glancectl quota show demo", "glancectl quota show demo -f json"),
		Action: quotaAction(s, func(*cli.Context, *glanceapi.Client, string) error { return nil }),
	}
}

func quotaSetCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "set a project's limits", ArgsUsage: "PROJECT",
		Description: "A limit that is not given stays as it is. Images that are there already stay, whatever the limit." + examples(
			"glancectl quota set demo --image-count-total 20",
			"glancectl quota set demo --image-size-total 0"),
		Flags: []cli.Flag{
			&cli.Int64Flag{Name: "image-count-total", Usage: "at most `N` images (0 = no limit)"},
			&cli.Int64Flag{Name: "image-size-total", Usage: "at most `MIB` of image data (0 = no limit)"},
		},
		Action: func(c *cli.Context) error {
			var limits glanceapi.QuotaLimits
			for option, limit := range map[string]**int64{"image-count-total": &limits.ImageCountTotal, "image-size-total": &limits.ImageSizeTotal} {
				if !c.IsSet(option) {
					continue
				}
				n := c.Int64(option)
				if n < 0 {
					return usagef(c, "--%s %d is below 0; 0 is no limit", option, n)
				}
				*limit = &n
			}
			if limits == (glanceapi.QuotaLimits{}) {
				return usagef(c, "nothing to set: give --image-count-total or --image-size-total")
			}
			return quotaAction(s, func(c *cli.Context, api *glanceapi.Client, project string) error {
				return api.SetQuota(c.Context, project, limits)
			})(c)
		},
	}
}

func quotaUnsetCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "unset", Usage: "let the configured limits hold for a project again", ArgsUsage: "PROJECT",
		Description: "Forgets what glancectl quota set did." + examples("glancectl quota unset demo"),
		Action: quotaAction(s, func(c *cli.Context, api *glanceapi.Client, project string) error {
			return api.UnsetQuota(c.Context, project)
		}),
	}
}

// quotaAction is the frame of the quota commands: change something, then show
// what holds for the project now.
func quotaAction(s streams, change func(*cli.Context, *glanceapi.Client, string) error) cli.ActionFunc {
	return asking(s, []string{"PROJECT"}, func(c *cli.Context, args []string, p *printer, api *glanceapi.Client) error {
		if err := change(c, api, args[0]); err != nil {
			return adminOnly(api, err)
		}
		q, err := api.Quota(c.Context, args[0])
		if err != nil {
			return adminOnly(api, err)
		}
		own := "no, the configured limits hold"
		if q.Own {
			own = "yes"
		}
		return p.one(record{
			{name: "project", value: q.Project},
			{name: "own", value: q.Own, text: own},
			{name: "image_count_total", value: q.ImageCountTotal, text: allowance(q.ImageCountTotal, "images")},
			{name: "image_size_total", value: q.ImageSizeTotal, text: allowance(q.ImageSizeTotal, "MiB")},
		})
	})
}

func allowance(a glanceapi.Allowance, unit string) string {
	if a.Limit == 0 {
		return fmt.Sprintf("%d %s, no limit", a.Usage, unit)
	}
	return fmt.Sprintf("%d of %d %s", a.Usage, a.Limit, unit)
}

// adminOnly explains a failure of an admin route, which only the control socket
// has, and only for administrators. Elsewhere glanced answers 300, as Glance does
// to any unknown path.
func adminOnly(api *glanceapi.Client, err error) error {
	var e *glanceapi.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case !api.OverSocket() && (e.Status == http.StatusNotFound || e.Status == http.StatusMultipleChoices):
		return &advised{err, "This is answered on the control socket only: use --socket instead of --url."}
	case e.Status == http.StatusForbidden:
		return &advised{err, "Only root and the daemon's own user may do that: use sudo."}
	case e.Status == http.StatusNotFound:
		return &advised{err, ""}
	}
	return err
}
