package formattest_test

import (
	"bytes"
	"testing"

	"glanced/formats/formattest"
	"glanced/formats/raw"
)

// raw is the simplest driver: what the suite says of it, it says of the suite.
func TestRaw(t *testing.T) {
	formattest.Suite{
		Driver:       raw.Driver(),
		Image:        func(*testing.T) []byte { return bytes.Repeat([]byte("disk"), 1000) },
		NoReferences: "raw bytes have no header to name a file in",
	}.Run(t)
}

func TestRawGolden(t *testing.T) {
	formattest.Golden(t, raw.Driver(), "raw", []formattest.Variant{
		{},
		{Options: "preallocation=full", Largest: 16 << 20},
	})
}

func FuzzOpenRaw(f *testing.F) {
	formattest.FuzzOpen(f, raw.Driver(), []byte("some bytes"))
}
