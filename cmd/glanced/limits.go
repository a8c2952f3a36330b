package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// programBytes is what of the memory budget the program itself takes: the parts of
// its file, and of its libraries, that are in use.
const programBytes = 20 << 20

// The shares of the rest of the budget, percent. What is left over is the Go runtime's
// and the sessions' small change.
const (
	clusterShare = 35 // decoded clusters
	tableShare   = 9  // tables of formats
	bufferShare  = 9  // what is read from stores
	nbdShare     = 12 // NBD replies, and a quarter of it besides, see nbd.Config
	mountShare   = 7  // what the kernel asks of the mount
	connShare    = 8  // NBD connections that say nothing
	uploadShare  = 5  // uploads under way, see catalog.UploadBytes
	httpShare    = 4  // buffers of uploads and downloads, beyond the least of each
	recordShare  = 3  // images' records in answers
	shownShare   = 2  // images' records in the mount
	tokenShare   = 1  // what Keystone says of tokens
)

// What the cache of far stores takes, of the share of clusters, if there is one.
const (
	fetchShare = 9 // what is on its way from stores
	indexShare = 3 // which chunks are on the disk
)

// connBytes is about what an NBD connection takes that asks for nothing at the moment:
// its session, the buffer that requests are read into, and two stacks.
const connBytes = 24 << 10

// fewConns are admitted however small the budget is.
const fewConns = 1024

// The shares of the files that the process may have open, as parts of files 16. What
// is left over, an eighth, is for the stores' own connections, the catalog and the logs.
const (
	nbdFiles   = 6 // two for each connection: its socket and its image, or what is cached of it
	httpFiles  = 4 // three for each: a download has its image, an upload two files
	mountFiles = 3 // one for each open file
	adminFiles = 1 // two for each
	fileParts  = 16
)

// leastFiles is what the doors can be opened with.
const leastFiles = 128

// limits says what each part of the daemon may take: the memory budget and the open
// files are divided here and nowhere else.
type limits struct {
	runtime                                      int64 // of the Go runtime: the budget without the program, bytes
	clusters, tables, buffers, nbd, mounts, http int64 // bytes
	uploads, records, shown, tokens              int64 // bytes
	fetches, index                               int64 // bytes; 0: there is no cache of far stores

	nbdConns, httpConns, adminConns int
	mountFiles                      int // open at once
}

// divide divides a budget, bytes, and the process's limit of open files; cached:
// there is a cache of far stores. The Go
// runtime has raised the soft limit to the hard one before main began.
func divide(budget int64, cached bool) (limits, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return limits{}, fmt.Errorf("ask for the limit of open files: %w", err)
	}
	if files.Cur < leastFiles {
		return limits{}, fmt.Errorf("the daemon may open %d files; it needs %d: raise its limit (ulimit -Hn, or LimitNOFILE= of systemd)", files.Cur, leastFiles)
	}
	return divided(budget, int64(min(files.Cur, 1<<30)), cached), nil
}

func divided(budget, files int64, cached bool) limits {
	rest := budget - programBytes
	share := func(percent int64) int64 { return rest / 100 * percent }
	part := func(parts, each int64) int { return int(files * parts / fileParts / each) }
	l := limits{
		runtime:  rest,
		clusters: share(clusterShare), tables: share(tableShare), buffers: share(bufferShare),
		nbd: share(nbdShare), mounts: share(mountShare), http: share(httpShare),
		uploads: share(uploadShare), records: share(recordShare), shown: share(shownShare), tokens: share(tokenShare),
		nbdConns:   min(part(nbdFiles, 2), int(max(share(connShare)/connBytes, fewConns))),
		httpConns:  part(httpFiles, 3),
		adminConns: part(adminFiles, 2),
		mountFiles: part(mountFiles, 1),
	}
	if cached {
		l.fetches, l.index = share(fetchShare), share(indexShare)
		l.clusters -= l.fetches + l.index
	}
	return l
}
