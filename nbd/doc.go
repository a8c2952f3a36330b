// Package nbd serves disks by the NBD protocol: fixed newstyle negotiation,
// simple and structured replies, base:allocation, read-only. The protocol is
// doc/proto.md of github.com/NetworkBlockDevice/nbd; comments name its sections.
//
// Vocabulary. Export: a disk that a client can open by name (Exports, Export).
// Chunk: a piece of a structured reply. Guest offset: a byte position on the disk.
//
// # A session's life
//
// Server.Serve (server.go) accepts a connection and gives it a session
// (session.go), one goroutine that lives as long as the connection.
//
// The handshake (handshake.go, options.go, metacontext.go) reads one option at
// a time and answers it. Everything a client says is bounded before memory is
// spent on it: the data of an option, the options, the time for all of them. It
// ends with what was negotiated: an open export and what was agreed about it.
//
// The transmission (transmission.go) then reads requests, as many as one read
// of the socket brings (requests.go), and decides for each who answers it:
//
//   - What is wrong by its looks, and FLUSH and CACHE: the reader, at once.
//   - A READ that nothing has to be waited for: the reader, too (inline.go). It has the
//     export plan the read without I/O. Zeros, cached clusters, and what is in the page
//     cache are answered from the plan: short reads are copied, all of a batch into one
//     block of memory; long ones are headers in that block and ranges of files.
//   - Everything else may wait for a disk, a network or a decoder: a worker, a
//     goroutine for that request alone (reads.go, blockstatus.go), which gets the plan
//     as far as it was made. So a slow read holds up no other, and replies leave as
//     they finish.
//
// Zeros are not shipped where structured replies were agreed on: the plan says where
// they are, and short reads are looked at.
//
// All replies go through one queue per connection (replies.go). Whoever pushes
// one and finds nobody writing becomes the writer, of whatever others push
// meanwhile as well: memory by sendmsg, ranges of files by sendfile
// (sendfile.go). The lock on the queue is never held during I/O.
//
// # Errors
//
// A read that fails is answered with an errno from one table (errors.go), and
// with a text and the place where chunks allow it; the session goes on. There are two
// exceptions, where the header has promised the length before all of the data is at
// hand, so that an error drops the connection: sendfile, which is used only for what is
// in the page cache, where no I/O is left that could fail; and a READ of more than
// 2 MiB (or of what memory there is) that has to be answered in one piece.
//
// # Memory
//
// Buffers for replies come from one budget of the server (memory.go, backends/budget).
// What a connection may hold of it depends on what is left, so that clients that ask
// for much and take nothing leave room for others; where others have to wait all the
// same, they are cut off early, and the log says so (deadlines.go). A long READ is read
// and sent in parts. Workers and the options of handshakes have budgets of their own:
// nobody waits for one while it holds another. While the reader waits, it reads no
// requests: that is what slows down a client that asks for more than it takes.
//
// # Ends
//
// DISC: what was asked is answered, then the connection closes. A client that closes
// its half of the connection without DISC gets its answers, too, if they come within
// the stall timeout; one that is gone has the context of its reads cancelled. A
// withdrawn export: reads under way and new ones answer EPERM for a moment, then the
// connection closes. Shutdown: what was received is answered, then the connection
// closes. In each case the session waits for its workers, and then closes the export.
package nbd
