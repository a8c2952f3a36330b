package file

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/localfile"
	"glanced/backends/stored"
)

// newBlob owns f, also when it fails. store and key tell it apart from others.
func newBlob(f *os.File, store, key string) (stored.Bytes, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, fmt.Errorf("%w: not a regular file", backends.ErrBadLocation)
	}
	version := fmt.Sprintf("%d-%d.%09d-%d", st.Ino, st.Mtim.Sec, st.Mtim.Nsec, st.Size)
	return localfile.New(f, stored.NewIdentity(store, key, version))
}
