package setting

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuantitiesAreWrittenWithTheirUnit(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "4096": 4096, "1KiB": 1 << 10, "512MiB": 512 << 20, " 3 GiB ": 3 << 30, "2TiB": 2 << 40} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q is %d, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "1MB", "9999999999TiB", "99999999999999999999"} {
		if new(Bytes).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is a size", text)
		}
	}
	for text, want := range map[string]time.Duration{"30s": 30 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%q is %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "30", "0s", "-1s", "soon"} {
		if new(Duration).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is a length of time", text)
		}
	}
}

func TestAPartIsASizeOrPercent(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "10GiB": 10 << 30, "5%": 50, " 2.5 %": 25, "0%": 0, "100%": 1000} {
		var p Part
		if err := p.UnmarshalText([]byte(text)); err != nil || p.Of(1000) != want || p.Any() != (want != 0) {
			t.Errorf("%q is %d of 1000, %v", text, p.Of(1000), err)
		}
	}
	for _, text := range []string{"", "%", "-1%", "101%", "NaN%", "5 percent", "five"} {
		if new(Part).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is a part", text)
		}
	}
}

func TestASecretIsTheFirstLineOfItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(" top/secret \nmore"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSecret(file)
	if err != nil || string(s) != "top/secret" {
		t.Errorf("%q, %v", string(s), err)
	}
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if text := fmt.Sprintf(format, struct{ S Secret }{s}); strings.Contains(text, "top") {
			t.Errorf("%s prints it: %s", format, text)
		}
	}
	if err := os.WriteFile(file, []byte("\nsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(file); err == nil {
		t.Error("an empty first line is a secret")
	}
}
