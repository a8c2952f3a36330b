// Package nbd serves disks by the NBD protocol: fixed newstyle negotiation,
// simple and structured replies, base:allocation, read-only. The protocol is
// doc/proto.md of github.com/NetworkBlockDevice/nbd; comments name its sections.
//
// Vocabulary. Export: a disk that a client can open by name (Exports, Export).
// Haggling: the negotiation of options, before transmission. Chunk: a piece of
// a structured reply. Guest offset: a byte position on the disk.
//
// # A session's life
//
// Server.Serve (server.go) accepts a connection and gives it a session
// (session.go), one goroutine that lives as long as the connection.
//
// The handshake (handshake.go, options.go, metacontext.go) reads one option at
// a time and answers it. Everything a client says is bounded before memory is
// spent on it: the data of an option, the options, the time for all of them. It
// ends with a deal: an open export and what was agreed about it.
//
// The transmission (transmission.go) then reads requests, as many as one read
// of the socket brings (requests.go), and decides for each who answers it:
//
//   - What is wrong by its looks, and FLUSH and CACHE: the reader, at once.
//   - A READ whose bytes lie in a local file and in the page cache: the reader,
//     too, because nothing has to be waited for (reads.go: readInline). Short
//     ones are copied, all of a batch into one block of memory; long ones are a
//     header in that block and a range of the file.
//   - Everything else may wait for a disk, a network or a decoder: a worker, a
//     goroutine for that request alone (reads.go: read; blockstatus.go). So a
//     slow read holds up no other, and replies leave as they finish.
//
// Zeros are not shipped where structured replies were agreed on: long reads are
// cut into runs by the export's extents, short ones are looked at.
//
// All replies go through one queue per connection (replies.go). Whoever pushes
// one and finds nobody writing becomes the writer, of whatever others push
// meanwhile as well: memory by sendmsg, ranges of files by sendfile
// (sendfile.go). The lock on the queue is never held during I/O.
//
// # Errors
//
// A read that fails is answered with an errno from one table (errors.go), and
// with a text and the place where chunks allow it; the session goes on. The one
// exception is sendfile: the header has promised the length, so an I/O error
// drops the connection. It is used only for what is in the page cache, where no
// I/O is left that could fail; a cold read takes the careful path.
//
// # Memory
//
// A worker takes the length of its request from the connection's budget and
// from the server's (budget.go) before it runs, and its reply gives it back
// when the last byte is written. While the reader waits for budget, or for one
// of the connection's places for workers, it reads no requests: that is what
// slows down a client that asks for more than it takes. A client that takes
// nothing at all is cut off after a while.
//
// # Ends
//
// DISC: what was asked is answered, then the connection closes. A hang-up
// cancels the context of the connection's reads; it is looked for also while no
// request is read. A withdrawn export: reads under way and new ones answer
// EPERM for a moment, then the connection closes. Shutdown: what was received
// is answered, then the connection closes. In each case the session waits for
// its workers, and then closes the export.
package nbd
