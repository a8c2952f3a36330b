package fs

import (
	"encoding/hex"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNamesAreSpelledAsTheyAreOrEscaped(t *testing.T) {
	for name, want := range map[string]string{
		"ubuntu 24.04":        "ubuntu 24.04",
		"乌班图服务器":              "乌班图服务器",
		"Máy chủ Ubuntu":      "Máy chủ Ubuntu",
		"😀":                   "😀",
		"100%":                "100%",
		"50% off":             "50% off",
		"-rf *":               "-rf *",
		".hidden":             ".hidden",
		"...":                 "...",
		`back\slash`:          `back\slash`,
		"":                    "%",
		"%":                   "%25",
		".":                   "%2E",
		"..":                  "%2E%2E",
		"a/b":                 "a%2Fb",
		"../../etc/passwd":    "..%2F..%2Fetc%2Fpasswd",
		"a%2Fb":               "a%252Fb",
		"%2":                  "%2",
		"%/":                  "%%2F",
		"nul\x00":             "nul%00",
		"line\nfeed\ttab":     "line%0Afeed%09tab",
		"esc\x1b[31m\x7f":     "esc%1B[31m%7F",
		"c1\u0085":            "c1%C2%85",
		"bad\xff\xc3utf8\xe4": "bad%FF%C3utf8%E4",
		"replaced\ufffd":      "replaced\ufffd",
		"gpj.\u202eexe":       "gpj.%E2%80%AEexe",
		"\u2066a\u2069\u061c": "%E2%81%A6a%E2%81%A9%D8%9C",
		"a\u2028b\u2029":      "a%E2%80%A8b%E2%80%A9",
		"pay\u200bpal\ufeff":  "pay%E2%80%8Bpal%EF%BB%BF",
		"می\u200cخواهم":       "می\u200cخواهم",
		"👩\u200d💻":            "👩\u200d💻",
		"a~b":                 "a~b",
		"debian~0b1ac9a8-5c3f-4d1e-9a55-1f2e3d4c5b6a": "debian%7E0b1ac9a8-5c3f-4d1e-9a55-1f2e3d4c5b6a",
		"~0B1AC9A8-5C3F-4D1E-9A55-1F2E3D4C5B6A":       "%7E0B1AC9A8-5C3F-4D1E-9A55-1F2E3D4C5B6A",
		"x~0b1ac9a8-5c3f-4d1e-9a55-1f2e3d4c5b6a.old":  "x~0b1ac9a8-5c3f-4d1e-9a55-1f2e3d4c5b6a.old",
	} {
		got := fileName(name)
		if got != want {
			t.Errorf("fileName(%q) = %q, want %q", name, got, want)
		}
		if back := imageName(got); back != name {
			t.Errorf("imageName(%q) = %q, want %q", got, back, name)
		}
	}
}

func TestOverlongNamesAreCutBetweenCharactersAndStayApart(t *testing.T) {
	for _, name := range []string{
		strings.Repeat("x", 256),
		strings.Repeat("乌", 255),
		"x" + strings.Repeat("乌", 255),
		"xy" + strings.Repeat("😀", 255),
		strings.Repeat("/", 255),
		"x" + strings.Repeat("\n", 255),
		"xy" + strings.Repeat("\xff", 255),
	} {
		got := fileName(name)
		if len(got) > 255 || len(got) < 245 {
			t.Errorf("a name of %d bytes is spelled in %d bytes", len(name), len(got))
		}
		if !utf8.ValidString(got) {
			t.Errorf("%q is cut within a character", got)
		}
		kept, _, found := strings.Cut(got, "~")
		if !found || !strings.HasPrefix(name, imageName(kept)) {
			t.Errorf("%q does not begin as %q does", got, name)
		}
		if other := fileName(name + "!"); other == got {
			t.Errorf("two names are spelled %q", got)
		}
	}
	if exact := strings.Repeat("x", 255); fileName(exact) != exact {
		t.Error("a name of 255 bytes was cut")
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"", ".", "..", "%", "%41", "a/b", "\xff", "乌", strings.Repeat("%2", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := fileName(name)
		if got == "" || got == "." || got == ".." || len(got) > 255 || strings.ContainsAny(got, "/\x00\n") || !utf8.ValidString(got) {
			t.Fatalf("fileName(%q) = %q", name, got)
		}
		if len(got) < 230 && imageName(got) != name {
			t.Fatalf("imageName(%q) = %q, want %q", got, imageName(got), name)
		}
	})
}

// imageName is the image name that fileName spelled so. It holds for every
// spelling that was not cut.
func imageName(file string) string {
	if file == emptyName {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(file); i++ {
		if isEscape(file[i:]) {
			c, _ := hex.DecodeString(file[i+1 : i+3])
			b.WriteByte(c[0])
			i += 2
			continue
		}
		b.WriteByte(file[i])
	}
	return b.String()
}
