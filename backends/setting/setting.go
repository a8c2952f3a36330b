// Package setting is how quantities are written in the configuration file.
package setting

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes, written "512MiB" (KiB, MiB, GiB, TiB) or plain.
type Bytes int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			s, shift = strings.TrimSpace(rest), 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a size: write it like 512MiB", text)
	}
	*b = Bytes(n << shift)
	return nil
}

// Duration is a length of time above zero, written "30s" (ms, s, m, h).
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is not a length of time: write it like 30s", text)
	}
	*d = Duration(v)
	return nil
}

// Secret is text that is not printed.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "(secret)" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "(secret)" }

// ReadSecret is the first line of a file.
func ReadSecret(file string) (Secret, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("the first line of %s is empty", file)
	}
	return Secret(line), nil
}

// Part is a number of bytes, or a part of a whole, written "10GiB" or "5%".
type Part struct {
	Bytes   Bytes
	Percent float64 // used where it is not 0
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Part) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	if !ok {
		*p = Part{}
		if err := p.Bytes.UnmarshalText(text); err != nil {
			return fmt.Errorf("%q is neither a size nor a part: write it like 10GiB or 5%%", text)
		}
		return nil
	}
	percent, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return fmt.Errorf("%q is not a part: write it like 5%%, at most 100%%", text)
	}
	*p = Part{Percent: percent}
	return nil
}

// Of is how many bytes of a whole the part is.
func (p Part) Of(whole int64) int64 {
	if p.Percent != 0 {
		return int64(float64(whole) / 100 * p.Percent)
	}
	return int64(p.Bytes)
}

// Any tells whether the part can be anything but 0.
func (p Part) Any() bool { return p != Part{} }
