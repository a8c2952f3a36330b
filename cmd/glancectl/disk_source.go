package main

import (
	"os"

	"glanced/formats/localfile"
)

// openSource opens the file at path, which is a name that the user gave.
func openSource(path string) (*localfile.Source, error) {
	if err := regularOrDevice(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return localfile.New(f)
}
