package all_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
)

// streamed is the verdict of who sees an image go by: first its head, then its tail.
func streamed(image []byte) (string, error) {
	found, err := formats.Detect(all.Drivers(), image[:min(len(image), formats.ProbeLen)])
	if err != nil {
		return "", err
	}
	return formats.DetectTail(all.Drivers(), found, image[max(0, len(image)-formats.TailLen):])
}

// detected is the verdict on an image, which is the same for who streams it and for
// who has all of it.
func detected(t *testing.T, image []byte) (string, error) {
	t.Helper()
	name, err := streamed(image)
	whole, wholeErr := formats.DetectSource(t.Context(), all.Drivers(), formattest.Memory(image))
	if name != whole || fmt.Sprint(err) != fmt.Sprint(wholeErr) {
		t.Errorf("streamed it is %q (%v), read %q (%v)", name, err, whole, wholeErr)
	}
	if err != nil && !errors.Is(err, formats.ErrFormat) {
		t.Errorf("not ErrFormat: %v", err)
	}
	return name, err
}

// For every two formats that a file can be of at once: it is refused, whichever is
// declared, and its error names both. Each byte of the second one's sign counts: with
// any of them changed, the image is of the first alone.
func TestEveryPairOfFormatsIsRefused(t *testing.T) {
	pairs := hostile.Pairs()
	if len(pairs) < 60 {
		t.Errorf("%d pairs only", len(pairs))
	}
	for _, p := range pairs {
		t.Run(p.Declared+" "+p.Name, func(t *testing.T) {
			name, err := detected(t, p.Bytes)
			switch {
			case p.Harmless && (err != nil || name != p.Declared):
				t.Errorf("it is %q (%v), and no polyglot", name, err)
			case !p.Harmless && err == nil:
				t.Errorf("it is %q alone", name)
			case !p.Harmless && !(strings.Contains(err.Error(), p.Declared) && strings.Contains(err.Error(), p.Also) && strings.Contains(err.Error(), "at once")):
				t.Errorf("%v does not name %s and %s", err, p.Declared, p.Also)
			}
			for i := range p.Len {
				mutant := bytes.Clone(p.Bytes)
				mutant[p.At+i] ^= 0x80
				if name, err := detected(t, mutant); err != nil || name != p.Declared {
					t.Errorf("with byte %d of the sign changed it is %q (%v)", i, name, err)
				}
			}
		})
	}
}

// Every format that is recognised is among the pairs, on both sides.
func TestPairsAreOfAllFormats(t *testing.T) {
	for _, d := range all.Drivers() {
		if d.Probe == nil {
			continue
		}
		first := func(p hostile.Pair) bool { return p.Declared == d.Name }
		second := func(p hostile.Pair) bool { return p.Also == d.Name }
		if !slices.ContainsFunc(hostile.Pairs(), first) || !slices.ContainsFunc(hostile.Pairs(), second) {
			t.Errorf("%s is missing", d.Name)
		}
	}
}

// edited is a head of 64 KiB with these texts at these places.
func edited(edits map[int]string) []byte {
	b := make([]byte, 64<<10)
	for at, text := range edits {
		copy(b[at:], text)
	}
	return b
}

func TestWhatCountsAsASecondFormat(t *testing.T) {
	const boot, disc, sane = "\x55\xaa", "CD001", "\x80\x01\x01\x00\x83\xfe\xff\xff\x00\x08\x00\x00\x00\x08\x00\x00"
	qcow2 := func(more map[int]string) []byte {
		b := edited(more)
		copy(b, "QFI\xfb")
		return b
	}
	for _, c := range []struct {
		name  string
		image []byte
		want  string // "" = refused
	}{
		{"nothing", edited(nil), "raw"},
		{"empty", nil, "raw"},
		{"a partitioned disk", edited(map[int]string{446: sane, 510: boot}), "raw"},
		{"an encrypted disk", edited(map[int]string{0: "LUKS\xba\xbe\x00\x01"}), "raw"},
		{"an encrypted disk with a boot signature", edited(map[int]string{0: "LUKS\xba\xbe\x00\x01", 510: boot}), "raw"},
		{"a disc of no known type, and so nothing", edited(map[int]string{32 << 10: "\x77" + disc + "\x01"}), "raw"},

		{"qcow2 alone", qcow2(nil), "qcow2"},
		{"qcow2 with a boot signature and a partition", qcow2(map[int]string{446: sane, 510: boot}), ""},
		{"qcow2 with a boot signature alone", qcow2(map[int]string{510: boot}), ""},
		{"qcow2 with a boot signature and no sane table", qcow2(map[int]string{446: "\x7f", 510: boot}), ""},
		{"qcow2 with a GPT", qcow2(map[int]string{446: "\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff", 510: boot, 512: "EFI PART"}), ""},
		{"qcow2 with half a boot signature", qcow2(map[int]string{510: "\x55"}), "qcow2"},
		{"qcow2 with the signature backwards", qcow2(map[int]string{510: "\xaa\x55"}), "qcow2"},
		{"qcow2 with a signature a byte off", qcow2(map[int]string{511: boot}), "qcow2"},
		{"qcow2 with a partition and no signature", qcow2(map[int]string{446: sane}), "qcow2"},
		{"qcow2 with a GPT header and no signature", qcow2(map[int]string{512: "EFI PART"}), "qcow2"},
		{"qcow2 cut off before the signature's end", qcow2(map[int]string{510: boot})[:511], "qcow2"},
		{"qcow2 of a sector", qcow2(map[int]string{510: boot})[:512], ""},
		{"qcow2 like a FAT boot sector of a fixed disk", qcow2(map[int]string{0x10: "\x02", 0x15: "\xf8", 510: boot}), "qcow2"},
		{"qcow2 like one of a floppy", qcow2(map[int]string{0x10: "\x02", 0x15: "\xf0", 510: boot}), ""},
		{"qcow2 like one of one table", qcow2(map[int]string{0x10: "\x01", 0x15: "\xf8", 510: boot}), ""},

		{"qcow2 and ISO 9660", qcow2(map[int]string{32 << 10: "\x01" + disc + "\x01"}), ""},
		{"qcow2 and ISO 9660 of no known type", qcow2(map[int]string{32 << 10: "\x77" + disc + "\x01"}), ""},
		{"qcow2 and ISO 9660 of no known version", qcow2(map[int]string{32 << 10: "\x01" + disc + "\x77"}), ""},
		{"qcow2 and UDF", qcow2(map[int]string{32<<10 + 1: "NSR03\x01"}), ""},
		{"qcow2 and UDF of no known version", qcow2(map[int]string{32<<10 + 1: "NSR02\x09"}), ""},
		{"qcow2 and UDF's beginning", qcow2(map[int]string{32<<10 + 1: "BEA01\x01"}), ""},
		{"qcow2 and a descriptor in the next place", qcow2(map[int]string{34<<10 + 1: disc}), "qcow2"},
		{"qcow2, ISO 9660 and MBR", qcow2(map[int]string{510: boot, 32 << 10: "\x01" + disc + "\x01"}), ""},

		{"ISO 9660 and MBR", edited(map[int]string{446: sane, 510: boot, 32 << 10: "\x01" + disc + "\x01"}), "iso"},
		{"ISO 9660 and no sane table", edited(map[int]string{446: "\x7f", 510: boot, 32 << 10: "\x01" + disc + "\x01"}), "iso"},
		{"ISO 9660 and GPT", edited(map[int]string{510: boot, 512: "EFI PART", 32 << 10: "\x01" + disc + "\x01"}), "iso"},
		{"UDF and MBR", edited(map[int]string{510: boot, 32<<10 + 1: "NSR03\x01"}), "iso"},
		{"ISO 9660 and LUKS", edited(map[int]string{0: "LUKS\xba\xbe\x00\x01", 32 << 10: "\x01" + disc + "\x01"}), ""},
		{"vdi and LUKS", edited(map[int]string{0: "LUKS\xba\xbe\x00\x01", 64: "\x7f\x10\xda\xbe"}), ""},
		{"a boot record in front of a vdi", edited(map[int]string{0: "\xeb\x63\x90", 64: "\x7f\x10\xda\xbe", 446: sane, 510: boot}), ""},
		{"a vmdk descriptor with a boot signature", edited(map[int]string{0: "# Disk DescriptorFile\n", 510: boot}), ""},
		{"COWD and MBR", edited(map[int]string{0: "COWD", 510: boot}), ""},
	} {
		name, err := detected(t, c.image)
		if (err != nil) != (c.want == "") || name != c.want {
			t.Errorf("%s: %q (%v), want %q", c.name, name, err, c.want)
		}
	}
}

// A fixed vhd begins with what its guest wrote, and ends in a footer of 512 bytes, or
// of 511.
func TestABootableFixedVHDIsNoPolyglot(t *testing.T) {
	footer := make([]byte, 512)
	copy(footer, "conectix")
	boot := edited(map[int]string{446: "\x80\x01\x01\x00\x83", 510: "\x55\xaa", 512: "EFI PART"})
	for name, image := range map[string][]byte{
		"MBR":                       append(bytes.Clone(boot), footer...),
		"MBR, a footer of 511":      append(bytes.Clone(boot), footer[:511]...),
		"FAT":                       append(edited(map[int]string{0x10: "\x02", 0x15: "\xf8", 510: "\x55\xaa"}), footer...),
		"LUKS":                      append(edited(map[int]string{0: "LUKS\xba\xbe\x00\x01"}), footer...),
		"a footer alone":            append(make([]byte, 512), footer...),
		"shorter than what is read": append(boot[:1024:1024], footer...),
	} {
		if found, err := detected(t, image); err != nil || found != "vhd" {
			t.Errorf("%s: %q (%v)", name, found, err)
		}
	}
	for name, image := range map[string][]byte{
		"a dynamic vhd with an MBR":   append(edited(map[int]string{0: "conectix", 510: "\x55\xaa"}), footer...),
		"a fixed vhd with a disc":     append(edited(map[int]string{32 << 10: "\x01CD001\x01"}), footer...),
		"a fixed vhd in an isohybrid": append(edited(map[int]string{510: "\x55\xaa", 32 << 10: "\x01CD001\x01"}), footer...),
	} {
		if found, err := detected(t, image); err == nil {
			t.Errorf("%s: %q", name, found)
		}
	}
}

// FuzzDetect holds the two ways to recognise an image against each other, and what
// they say against the rule: of one format, and with no sign of another.
func FuzzDetect(f *testing.F) {
	seen := map[string]bool{}
	for _, p := range hostile.Pairs() {
		if short := p.Bytes[:min(len(p.Bytes), 41<<10)]; !seen[string(short)] { // of the longest, the beginning
			seen[string(short)] = true
			f.Add(short)
		}
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		name, err := detected(t, image)
		var heads, tails []string
		for _, d := range all.Drivers() {
			if d.Probe != nil && d.Probe(image[:min(len(image), formats.ProbeLen)]) {
				heads = append(heads, d.Name)
			}
			if d.ProbeTail != nil && d.ProbeTail(image[max(0, len(image)-formats.TailLen):]) && !slices.Contains(heads, d.Name) {
				tails = append(tails, d.Name)
			}
		}
		boot := len(image) >= 512 && string(image[510:512]) == "\x55\xaa" && !(image[16] == 2 && image[21] == 0xf8)
		luks := bytes.HasPrefix(image, []byte("LUKS\xba\xbe"))
		both := append(heads, tails...)
		bad := len(both) > 1 || len(heads) == 1 && heads[0] != "iso" && (boot || len(image) >= 32<<10+6 && slices.Contains([]string{"CD001", "NSR02", "NSR03"}, string(image[32<<10+1:][:5]))) || len(heads) == 1 && luks
		switch {
		case bad != (err != nil):
			t.Errorf("of %v, a boot record: %v, luks: %v: %q (%v)", both, boot, luks, name, err)
		case err == nil && len(both) == 0 && name != "raw", err == nil && len(both) == 1 && name != both[0]:
			t.Errorf("of %v it is %q", both, name)
		}
	})
}
