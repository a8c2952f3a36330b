// Package engine turns extents into bytes, for every format and every source. It is
// the one place that moves, decodes, caches and reads ahead.
//
// # The life of a read
//
// Somebody wants guest range [off, off+n) of a Disk (disk.go): the image's layout, the
// sources its extents point into, and the parent disk that shows through.
//
// Disk.Plan (plan.go) asks the map, once. A walk (walk.go) has the layout map the
// range, and goes down to the parent wherever it says Absent. Layouts read their
// metadata through a cache of tables (tables.go) that all disks share: one fetch for all
// who want a table, and those that a long walk will want next fetched ahead. With
// PlanOptions.WithoutIO, a table that is not at hand ends the walk with ErrWouldWait.
//
// The plan says of each piece how its bytes are come by: zeros; a range of a local file,
// which is held; a cached cluster, for small reads; or bytes to be moved. Its owner, one
// of the doors, sends the first three as they are, and has Plan.Read do the rest.
//
// Plan.Read (move.go) makes jobs: reads of data, and compressed clusters, of which
// those near each other are read together. A cluster that another read is decoding
// already is joined and not decoded twice (clusters.go); the first who wants it leads.
// Jobs at remote sources run at once. Before a job reads coded bytes, it waits for
// working memory, of which one source gets a part only; before it decodes, for one of
// the decoders (decode.go), of which there is one for each core.
//
// A decoded cluster is kept (s3fifo.go) unless the read is part of a scan, or the cache
// is full and newcomers are seldom wanted again. Then a small read decodes just the
// beginning of its cluster, where the codec can.
//
// Sequential readers are noticed (readahead.go), and what they will want next is
// decoded into the cache, or asked of sources that take Prefetch.
//
// Plan.Release gives back what the plan holds. A disk is closed when no plan and no
// call is in it any more.
package engine
