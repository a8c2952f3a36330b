package main

import (
	"encoding/json"
	"testing"

	"glanced/formats"
)

// The two ways to write a run must not drift apart.
func TestARunIsTheSameInJSONAndInTables(t *testing.T) {
	for kind := formats.Absent; kind <= formats.Compressed; kind++ {
		x := formats.Extent{Off: 1, Len: 2, Kind: kind, Src: 3, Pos: 4, N: 5, Depth: 6}
		got, err := json.Marshal(extentJSON(x))
		if err != nil {
			t.Fatal(err)
		}
		if want := string(object(extentRecord(x))); string(got) != want {
			t.Errorf("%v: %s in JSON, %s in a table", kind, got, want)
		}
	}
}
