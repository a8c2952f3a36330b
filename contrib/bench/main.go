// Command bench measures ours and its peers side by side: the same disk in several
// formats, in turns within one run. It prints medians and ratios and writes them to
// a Markdown file. It only measures; it judges nothing.
//
//	bench [FLAGS]           glanced and qemu-nbd serve a disk to the same NBD clients
//	bench formats [FLAGS]   glancectl and qemu-img read a disk, and what small reads cost
//	bench small [FLAGS]     small reads of a whole disk, holes too, one by one and many at once
//	bench stores [FLAGS]    images in an S3 server that is far away, read through the cache and uploaded
//	bench boot [FLAGS]      a Debian boots from an S3 server that is far away
//
// With -against DIR, another build of ours takes part, whose programs are in DIR.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	measure := benchServing
	if len(os.Args) > 1 {
		if other, ok := map[string]func(context.Context) error{"formats": benchFormats, "small": benchSmall, "stores": benchStores, "boot": benchBoot}[os.Args[1]]; ok {
			measure = other
			os.Args = slices.Delete(os.Args, 1, 2)
		}
	}
	if err := measure(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command runs a program that may have mounts: it is ended as a server is.
func command(ctx context.Context, name string, args ...string) error {
	cmd := newServer(ctx, name, args...)
	cmd.Stdout = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
