package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/stored"
)

// Versions are on record for as long as images live: what is scheme 1 today is
// scheme 1 for ever.
func TestVersionsStayWhatTheyAre(t *testing.T) {
	for _, c := range []struct {
		n    int
		want string
	}{
		{0, "1:374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb"},
		{5, "1:73e97effd0e5622f9d24cfeb916e361f5024639a87cd1fe8e687ec5a9cfa5c14"},
		{64 << 10, "1:1b426e1841a867cf5037e5fac0c4ee78f7a3d1e4f3ddd7f21b202876242ec3fa"},
		{64<<10 + 1, "1:e77cee3604647d70b4cfe01ab9bdb01c5902f686f628a554cfa480ec2a364374"},
		{3<<20 + 17, "1:7d4d226f85a826998109afb6a3405c0b2374bfec17f255e1e648cd26f28d56ba"},
	} {
		content := make([]byte, c.n)
		for i := range content {
			content[i] = byte(i ^ i>>8 ^ i>>16)
		}
		got, err := version(bytes.NewReader(content), int64(c.n))
		if err != nil || got != c.want {
			t.Errorf("%d bytes: %s, %v; want %s", c.n, got, err, c.want)
		}
	}
}

func TestSamplesLieWhereTheyAreSaidTo(t *testing.T) {
	const size = 800<<20 + 5
	want := []int64{0, 64 << 10, 1 << 20, 100 << 20, 200 << 20, 300 << 20, 400 << 20, 500 << 20, 600 << 20, 700 << 20, size - 4<<10}
	if got := samples(size); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, size := range []int64{0, 1, 64 << 10, 64<<10 + 1, 1 << 20, 1<<20 + 1, 1<<63 - 1} {
		for _, off := range samples(size) {
			if off < 0 || off > max(0, size-sampleLen) {
				t.Errorf("of %d bytes, one lies at %d", size, off)
			}
		}
	}
}

// What an operator does to a file that is open.
func TestWhatIsTouchedWhileItIsOpenIsLookedAtAgain(t *testing.T) {
	content := backendtest.Noise(51, 300_000)
	for _, c := range []struct {
		name string
		do   func(file string) error
		want error
	}{
		{"nothing", func(string) error { return nil }, nil},
		{"its mode", func(file string) error { return os.Chmod(file, 0o600) }, nil},
		{"the same content again", func(file string) error { return os.WriteFile(file, content, 0) }, nil},
		{"removed", os.Remove, nil},
		{"another file under its name", func(file string) error {
			return errors.Join(os.WriteFile(file+".new", content[1:], 0o600), os.Rename(file+".new", file))
		}, nil},
		{"cut off", func(file string) error { return os.Truncate(file, 299_999) }, backends.ErrChanged},
		{"grown", func(file string) error { return os.Truncate(file, 300_001) }, backends.ErrChanged},
		{"other content", func(file string) error { return os.WriteFile(file, backendtest.Noise(52, 300_000), 0) }, backends.ErrChanged},
	} {
		s := openStore(t, t.TempDir())
		loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(content), -1)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Open(t.Context(), loc)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		v, ok := stored.As[stored.Verifier](b)
		if !ok {
			t.Fatal("not a Verifier")
		}
		if err := c.do(filepath.Join(s.members[0].root, "k")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := v.Verify(t.Context()); !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		if s, ok := stored.As[stored.Verifier](stored.Section(b, 10, 20, nil)); !ok || !errors.Is(s.Verify(t.Context()), c.want) {
			t.Errorf("%s: a section of it says otherwise", c.name)
		}
	}
}
