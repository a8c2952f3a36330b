package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"glanced/catalog/records"
)

// leastFree is the room on its disk below which the database takes in nothing more, bytes.
const leastFree = 1 << 20

// reserve is room on the disk that the database's log has beyond its end, so that images
// can be deleted when the disk is full. It is the file's already, so nobody can come
// first. The log takes all that is written until there is room to copy it into the
// database. (Behind the database itself no room stays: SQLite truncates that file to its
// length after each copying.) What makes records grow is refused on a full disk, so that
// it does not use the room up; see sqltx.Dialect.Room.
type reserve struct {
	bytes int64
	dir   string
	log   *os.File
}

// openReserve opens the log of the database at path, which is there once that was read.
func openReserve(path string, bytes int64) (*reserve, error) {
	f, err := os.OpenFile(path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &reserve{bytes: bytes, dir: filepath.Dir(path), log: f}, nil
}

// refill takes what is missing of the room, where there is some.
func (r *reserve) refill() {
	var st unix.Stat_t
	if unix.Fstat(int(r.log.Fd()), &st) == nil && st.Blocks*512 < r.bytes {
		// It fails when the disk is full or cannot do this: there is no reserve then.
		_ = unix.Fallocate(int(r.log.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, r.bytes)
	}
}

// room is ErrFull when the disk has none for anything that grows.
func (r *reserve) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.dir, &st); err != nil {
		return nil // the write itself will tell
	}
	if free := int64(st.Bavail) * st.Bsize; free < leastFree {
		return fmt.Errorf("%w: %d bytes are free at %s, and what is reserved is for deletions", records.ErrFull, free, r.dir)
	}
	return nil
}

// connector opens connections that leave the log, and the room that it has, where they
// are when the last one is closed: a disk that is full at the next start has none to give.
type connector struct {
	driver sqlite3.SQLiteDriver
	dsn    string
}

func newConnector(dsn string) *connector {
	return &connector{dsn: dsn, driver: sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		return c.SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1)
	}}}
}

// Connect implements driver.Connector.
func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return &c.driver }
