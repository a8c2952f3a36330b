package nbd

// Numbers of the NBD protocol that go-nbd's pkg/protocol lacks. Sections are
// those of doc/proto.md in github.com/NetworkBlockDevice/nbd. Where pkg/protocol
// has a number or a struct, the code uses it from there.

// "Handshake flags" and "Client flags"; both directions use the same bits.
const flagNoZeroes = uint16(1 << 1)

// "Option types".
const (
	optExportName      = uint32(1)
	optStartTLS        = uint32(5)
	optStructuredReply = uint32(8)
	optListMetaContext = uint32(9)
	optSetMetaContext  = uint32(10)
)

// "Option reply types".
const (
	repMetaContext = uint32(4)
	repErrPolicy   = uint32(1<<31 | 2)
	repErrInvalid  = uint32(1<<31 | 3)
	repErrShutdown = uint32(1<<31 | 7)
	repErrTooBig   = uint32(1<<31 | 9)
)

// "Transmission flags".
const (
	flagReadOnly  = uint16(1 << 1)
	flagSendFlush = uint16(1 << 2)
	flagSendDF    = uint16(1 << 7)
	flagSendCache = uint16(1 << 10)
)

// "Request types".
const (
	cmdFlush       = uint16(3)
	cmdTrim        = uint16(4)
	cmdCache       = uint16(5)
	cmdWriteZeroes = uint16(6)
	cmdBlockStatus = uint16(7)
)

// "Command flags".
const (
	cmdFlagDF     = uint16(1 << 2)
	cmdFlagReqOne = uint16(1 << 3)
)

// "Structured reply chunk message", "Structured reply flags" and "Structured
// reply types".
const (
	chunkMagic = uint32(0x668e33ef)

	chunkDone = uint16(1 << 0)

	chunkOffsetData  = uint16(1)
	chunkOffsetHole  = uint16(2)
	chunkBlockStatus = uint16(5)
	chunkError       = uint16(1<<15 | 1)
	chunkErrorOffset = uint16(1<<15 | 2)
)

// "The base: metadata namespace".
const (
	allocationContext = "base:allocation"
	allocationID      = uint32(1) // ours to choose; told to the client by SET_META_CONTEXT

	stateHole = uint32(1 << 0)
	stateZero = uint32(1 << 1)
)

// "Error values".
const (
	errnoNoSpace  = 28
	errnoIO       = uint32(5)
	errnoOverflow = uint32(75)
	errnoShutdown = uint32(108)
)

// Sizes on the wire, bytes.
const (
	requestSize     = 28
	simpleSize      = 16
	chunkSize       = 20
	dataHeaderSize  = chunkSize + 8     // of an OFFSET_DATA chunk, before its data
	holeSize        = chunkSize + 8 + 4 // of a whole OFFSET_HOLE chunk
	exportNameZeros = 124               // after the answer to EXPORT_NAME, unless NO_ZEROES
	maxString       = 4096              // "Conventions": no string of the protocol is longer
	maxRequest      = 32 << 20          // "Size constraints": the payload every peer must expect to handle
)
