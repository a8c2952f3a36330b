package raw_test

import (
	"bytes"
	"testing"

	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/raw"
)

func TestRawUnderEveryName(t *testing.T) {
	drivers := raw.Drivers()
	for i, name := range []string{"raw", "ami", "ari", "aki"} {
		t.Run(name, func(t *testing.T) {
			if drivers[i].Name != name {
				t.Fatalf("the driver is called %s", drivers[i].Name)
			}
			formattest.Suite{
				Driver:       drivers[i],
				Image:        func(*testing.T) []byte { return bytes.Repeat([]byte("disk"), 1000) },
				NoReferences: "raw bytes have no header to name a file in",
			}.Run(t)
		})
	}
}

// What is guessed is never one of the names that say the same of any bytes.
func TestNothingIsGuessedToBeAnAMI(t *testing.T) {
	image := formattest.Memory(make([]byte, 1<<20))
	if name, err := formats.DetectSource(t.Context(), raw.Drivers(), image); err != nil || name != "raw" {
		t.Errorf("zeros are %q (%v)", name, err)
	}
}
