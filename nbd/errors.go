package nbd

import (
	"context"
	"errors"

	"github.com/pojntfx/go-nbd/pkg/protocol"

	"glanced/backends/stored"
	"glanced/formats"
)

// Sentinels of the server itself.
var (
	// ErrServerClosed is returned by Serve after Shutdown.
	ErrServerClosed = errors.New("the NBD server is shut down")
	// ErrProtocol is what ended a session whose client broke the protocol.
	ErrProtocol = errors.New("the client broke the NBD protocol")
	// ErrHangUp is why reads are cancelled when their client is gone.
	ErrHangUp = errors.New("the client hung up")
)

// errSlowHandshake is why an export is no longer being opened: the whole
// handshake has one deadline.
var errSlowHandshake = errors.New("the handshake took too long")

// outcome is what a client is told about an error: by an option reply while
// negotiating, by an errno afterwards. text is for people and must not carry what
// the wrapped error says (paths, addresses of stores), which goes to the log.
type outcome struct {
	err   error
	reply uint32
	errno uint32
	text  string
}

// outcomes is the one table of this door, most telling first: an error that
// wraps several is the first of them. A test holds it against every sentinel of
// the contracts used here.
//
// ERR_UNSUP is never an answer here: clients take it for "the server does not
// know GO" and fall back to EXPORT_NAME.
var outcomes = []outcome{
	{ErrRevoked, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, protocol.TRANSMISSION_ERROR_EPERM, "the export was withdrawn"},
	{ErrForbidden, repErrPolicy, protocol.TRANSMISSION_ERROR_EPERM, "you may not open this export"},
	{ErrUnknownExport, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, protocol.TRANSMISSION_ERROR_EPERM, "no such export"},
	{ErrWithheld, repErrPolicy, protocol.TRANSMISSION_ERROR_EPERM, "a disk that the export stands on was withdrawn"},
	// Not ERR_UNKNOWN, which clients take for a wrong name: it is there, and may be had later.
	{ErrNoSpace, repErrPolicy, errnoNoSpace, "there is no room now to decompress the image: try again later"},
	{ErrUnreadable, repErrPolicy, errnoIO, "the export has no readable disk"},
	{ErrServerClosed, repErrShutdown, errnoShutdown, "the server is shutting down"},
	{ErrHangUp, repErrShutdown, errnoShutdown, "the connection is closing"},
	{ErrProtocol, repErrInvalid, protocol.TRANSMISSION_ERROR_EINVAL, "the request breaks the NBD protocol"},
	{errSlowHandshake, repErrShutdown, errnoShutdown, "the handshake took too long"},

	{formats.ErrSnapshot, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, errnoIO, "the image has no such snapshot"},
	{formats.ErrRange, repErrPolicy, protocol.TRANSMISSION_ERROR_EINVAL, "the range lies outside the export"},
	{formats.ErrCorrupt, repErrPolicy, errnoIO, "the image is corrupt"},
	{formats.ErrFormat, repErrPolicy, errnoIO, "the image is not of its declared format"},
	{formats.ErrUnsupported, repErrPolicy, errnoIO, "the image uses a feature that cannot be read"},
	{formats.ErrReference, repErrPolicy, errnoIO, "the image refers to another file"},
	{formats.ErrEncrypted, repErrPolicy, errnoIO, "the image is encrypted"},
	{formats.ErrLimit, repErrPolicy, errnoIO, "the image asks for more than the limits allow"},
	{formats.ErrClosed, repErrShutdown, errnoShutdown, "the disk is closed"},
	{formats.ErrWouldWait, repErrPolicy, errnoIO, "reading would have to wait"}, // asked for by this door alone, which then waits

	// Before transmission the export is not available, which a client may try again.
	{stored.ErrUnavailable, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, errnoIO, "the image store cannot be reached"},
	{stored.ErrDenied, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, errnoIO, "the image store refuses access"},
	{stored.ErrChanged, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, errnoIO, "the data in the image store is not what was uploaded"},
	{stored.ErrNotFound, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, errnoIO, "the data is no longer in the image store"},
	{stored.ErrRange, repErrPolicy, errnoIO, "the image says that it has data past its end"}, // EINVAL would blame the request

	{context.DeadlineExceeded, repErrShutdown, errnoIO, "reading took too long"},
	{context.Canceled, repErrShutdown, errnoShutdown, "the connection is closing"},
}

// outcomeOf says what to tell a client about err, which is not nil. What the
// table does not know is an I/O error; while negotiating, an export that is not
// available ("Option reply types": ERR_UNKNOWN).
func outcomeOf(err error) outcome {
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o
		}
	}
	return outcome{err, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, errnoIO, "reading the image failed; the server's log says why"}
}
