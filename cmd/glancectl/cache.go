package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"glanced/cmd/glancectl/internal/glanceapi"
)

// prefetchPoll is how often is looked how far a prefetch is.
const prefetchPoll = 300 * time.Millisecond

func cacheCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "cache", Usage: "look into the cache of far stores, and steer it",
		Description: "Images that lie in a store behind a network are read through a cache on the daemon's disk." + examples(
			"glancectl cache stat",
			"glancectl cache list",
			"glancectl cache pin debian-12",
			"glancectl cache prefetch debian-12"),
		Subcommands: []*cli.Command{cacheListCommand(s), cacheStatCommand(s), cachePrefetchCommand(s), cachePinCommand(s), cacheEvictCommand(s)},
	}
}

func cacheListCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the images that are cached, or open", ArgsUsage: " ",
		Description: "The one that takes the most room is first. Without an image's id: it was deleted, and makes room when that is needed." + examples(
			"glancectl cache list", "glancectl cache list -f value -c image -c cached_bytes"),
		Action: reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
			cache, err := api.Cache(ctx)
			if err != nil {
				return err
			}
			var records []record
			for _, img := range cache.Images {
				records = append(records, cachedRecord(img))
			}
			return p.list([]string{"image", "store", "size_bytes", "cached_bytes", "pinned", "open"}, records)
		}),
	}
}

func cacheStatCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "stat", Usage: "show the state of the cache, or what it has of an image", ArgsUsage: "[ID|NAME]",
		Description: "What is counted is counted since the daemon started. problem says why nothing is written to the cache." + examples(
			"glancectl cache stat", "glancectl cache stat debian-12 -f json", "glancectl cache stat -f value -c problem"),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cachedAction(s, (*glanceapi.Client).CachedImage)(c)
			}
			return reportAction(s, func(ctx context.Context, api *glanceapi.Client, p *printer) error {
				cache, err := api.Cache(ctx)
				if err != nil {
					return err
				}
				return p.one(cacheRecord(cache))
			})(c)
		},
	}
}

func cachePrefetchCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "prefetch", Usage: "fetch all of an image into the cache", ArgsUsage: "ID|NAME",
		Description: "Waits until all is there; the daemon goes on when it is interrupted. What others read goes first. See pin for keeping it there." + examples(
			"glancectl cache prefetch debian-12", "glancectl cache prefetch debian-12 --no-wait"),
		Flags: append(progressFlags(), &cli.BoolFlag{Name: "no-wait", Usage: "let the daemon do it, and return"}),
		Action: func(c *cli.Context) error {
			return cachedAction(s, func(api *glanceapi.Client, ctx context.Context, id string) (glanceapi.CachedImage, error) {
				img, err := api.PrefetchImage(ctx, id)
				if err != nil || c.Bool("no-wait") {
					return img, err
				}
				return awaitPrefetch(ctx, c, s, api, img)
			})(c)
		},
	}
}

// awaitPrefetch waits until an image is prefetched.
func awaitPrefetch(ctx context.Context, c *cli.Context, s streams, api *glanceapi.Client, img glanceapi.CachedImage) (glanceapi.CachedImage, error) {
	bar := startProgress(c, s, "fetched", img.SizeBytes)
	defer bar.finish()
	shown := int64(0)
	for {
		bar.Update(min(img.CachedBytes, img.SizeBytes) - shown)
		shown = min(img.CachedBytes, img.SizeBytes)
		if !img.Prefetching {
			break
		}
		select {
		case <-time.After(prefetchPoll):
		case <-ctx.Done():
			return img, context.Cause(ctx)
		}
		var err error
		if img, err = api.CachedImage(ctx, img.Image); err != nil {
			return img, err
		}
	}
	if img.PrefetchError != "" {
		return img, fmt.Errorf("not all of it was fetched: %s", img.PrefetchError)
	}
	return img, nil
}

func cachePinCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "pin", Usage: "keep in the cache what is there of an image", ArgsUsage: "ID|NAME",
		Description: "It is not evicted, also after a restart, and counts against the size of the cache. It fetches nothing: see prefetch." + examples(
			"glancectl cache pin debian-12", "glancectl cache pin debian-12 --remove"),
		Flags: []cli.Flag{&cli.BoolFlag{Name: "remove", Usage: "let it be evicted again"}},
		Action: func(c *cli.Context) error {
			return cachedAction(s, func(api *glanceapi.Client, ctx context.Context, id string) (glanceapi.CachedImage, error) {
				return api.PinImage(ctx, id, !c.Bool("remove"))
			})(c)
		},
	}
}

func cacheEvictCommand(s streams) *cli.Command {
	return &cli.Command{
		Name: "evict", Usage: "remove what is cached of an image", ArgsUsage: "ID|NAME",
		Description: "Who reads the image reads on, from the store. A pin stays." + examples("glancectl cache evict debian-12"),
		Action:      cachedAction(s, (*glanceapi.Client).EvictImage),
	}
}

// cachedAction is the frame of a command that does something with what is cached of
// one image, and shows what that is then.
func cachedAction(s streams, do func(*glanceapi.Client, context.Context, string) (glanceapi.CachedImage, error)) cli.ActionFunc {
	return asking(s, []string{"ID|NAME"}, func(c *cli.Context, args []string, p *printer, api *glanceapi.Client) error {
		img, err := findImage(c.Context, api, args[0])
		if err != nil {
			return err
		}
		cached, err := do(api, c.Context, img.ID())
		if err != nil {
			return adminOnly(api, err)
		}
		return p.one(cachedRecord(cached))
	})
}

func cachedRecord(i glanceapi.CachedImage) record {
	return append(record{
		{name: "image", value: i.Image},
		{name: "store", value: i.Store},
		{name: "size_bytes", value: i.SizeBytes, text: humanBytes(i.SizeBytes)},
		{name: "cached_bytes", value: i.CachedBytes, text: humanBytes(i.CachedBytes)},
		{name: "chunks", value: i.Chunks, text: fmt.Sprintf("%d of %d", i.Chunks, i.AllChunks)},
		{name: "all_chunks", value: i.AllChunks},
		{name: "pinned", value: i.Pinned},
		{name: "open", value: i.Open},
		{name: "prefetching", value: i.Prefetching},
		{name: "prefetch_error", value: i.PrefetchError},
	}, countsRecord(i.CacheCounts)...)
}

func cacheRecord(c glanceapi.Cache) record {
	return append(record{
		{name: "dir", value: c.Dir},
		{name: "size_bytes", value: c.SizeBytes, text: humanBytes(c.SizeBytes)},
		{name: "used_bytes", value: c.UsedBytes, text: humanBytes(c.UsedBytes)},
		{name: "pinned_bytes", value: c.PinnedBytes, text: humanBytes(c.PinnedBytes)},
		{name: "chunks", value: c.Chunks},
		{name: "chunk_bytes", value: c.ChunkBytes, text: humanBytes(c.ChunkBytes)},
		{name: "min_free_bytes", value: c.MinFreeBytes, text: humanBytes(c.MinFreeBytes)},
		{name: "problem", value: c.Problem},
		{name: "images", value: len(c.Images)},
	}, countsRecord(c.CacheCounts)...)
}

func countsRecord(c glanceapi.CacheCounts) record {
	return record{
		{name: "hit_chunks", value: c.HitChunks},
		{name: "miss_chunks", value: c.MissChunks},
		{name: "fetches", value: c.Fetches},
		{name: "fetched_bytes", value: c.FetchedBytes, text: humanBytes(c.FetchedBytes)},
		{name: "evicted_chunks", value: c.EvictedChunks},
		{name: "unstored_chunks", value: c.UnstoredChunks},
		{name: "damaged_chunks", value: c.DamagedChunks},
	}
}
