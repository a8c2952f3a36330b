package main

import (
	"os"

	"glanced/backends/localfile"
)

// openSource opens the file at path, which is a name that the user gave. info
// tells whether two of them are one file.
func openSource(path string) (src *localfile.File, info os.FileInfo, err error) {
	if err := regularOrDevice(path); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		f.Close()
		return nil, nil, err
	}
	src, err = localfile.New(f, "")
	return src, info, err
}
