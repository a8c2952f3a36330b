package ova_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/formattest"
)

// both opens and verifies; what is wrong with an archive is seen by both.
func both(t *testing.T, b []byte, want error) {
	t.Helper()
	if o, err := open(t, formattest.Memory(b)); !errors.Is(err, want) {
		t.Errorf("Open: %q, %v; want %v", o.Name, err, want)
	}
	for _, n := range []int{1 << 20, 1000} {
		if err := verify(b, n); !errors.Is(err, want) {
			t.Errorf("Verify by %d: %v; want %v", n, err, want)
		}
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	ok := fileIn{"disk.img", "a disk"}
	for name, h := range map[string]struct {
		header tar.Header
		want   error
	}{
		"duplicate name":        {tar.Header{Name: "disk.img"}, formats.ErrCorrupt},
		"duplicate, by ./":      {tar.Header{Name: "./disk.img"}, formats.ErrCorrupt},
		"duplicate, by ././/":   {tar.Header{Name: ".//./disk.img"}, formats.ErrCorrupt},
		"absolute name":         {tar.Header{Name: "/etc/passwd"}, formats.ErrCorrupt},
		"name that leads out":   {tar.Header{Name: "../x"}, formats.ErrCorrupt},
		"name that leads out 2": {tar.Header{Name: "a/../../x"}, formats.ErrCorrupt},
		"name not text":         {tar.Header{Name: "a\xff\xfe", Format: tar.FormatGNU}, formats.ErrCorrupt},
		"symbolic link":         {tar.Header{Name: "x.vmdk", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, formats.ErrCorrupt},
		"hard link":             {tar.Header{Name: "x.vmdk", Typeflag: tar.TypeLink, Linkname: "disk.img"}, formats.ErrCorrupt},
		"character device":      {tar.Header{Name: "x.vmdk", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}, formats.ErrCorrupt},
		"block device":          {tar.Header{Name: "x.vmdk", Typeflag: tar.TypeBlock, Devmajor: 8}, formats.ErrCorrupt},
		"pipe":                  {tar.Header{Name: "x.vmdk", Typeflag: tar.TypeFifo}, formats.ErrCorrupt},
		"contiguous file":       {tar.Header{Name: "x.vmdk", Typeflag: tar.TypeCont}, formats.ErrUnsupported},
		"unknown type":          {tar.Header{Name: "x.vmdk", Typeflag: 'M'}, formats.ErrUnsupported},
		"long name":             {tar.Header{Name: strings.Repeat("a", 1025), Format: tar.FormatPAX}, formats.ErrLimit},
		"long name, as GNU":     {tar.Header{Name: strings.Repeat("a", 1025), Format: tar.FormatGNU}, formats.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			files := []fileIn{oneDisk(), ok, {}}
			headers := []*tar.Header{
				{Name: files[0].name, Size: int64(len(files[0].content))},
				{Name: ok.name, Size: int64(len(ok.content))},
				&h.header,
			}
			both(t, packHeaders(t, headers, files), h.want)
		})
	}
}

// sparseMembers are what tar --sparse writes, in each of its formats.
func TestSparseMembersAreRefused(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "vm.ovf"), oneDisk().content)
	writeFile(t, filepath.Join(dir, "disk.img"), "x")
	if err := os.Truncate(filepath.Join(dir, "disk.img"), 10<<20); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"} {
		src := packFiles(t, dir, append(strings.Fields(format), "--sparse", "vm.ovf", "disk.img")...)
		if src.Size() > 1<<20 {
			testbed.Unable(t, "the file system of the temporary folder keeps no holes: set TMPDIR to one that does")
		}
		both(t, []byte(content(t, src)), formats.ErrUnsupported)
	}
}

func TestEveryCutInsideAMemberIsCorrupt(t *testing.T) {
	b := pack(t, oneDisk(), fileIn{"disk.img", strings.Repeat("x", 3000)}, fileIn{"nvram", "y"})
	disk := strings.Index(string(b), "xxxxxxxx")
	for n := disk - 511; n < disk+3000; n += 37 {
		if n == disk-512 { // between two members
			continue
		}
		both(t, b[:n], formats.ErrCorrupt)
	}
}

func TestLyingSizesAreCorrupt(t *testing.T) {
	for name, size := range map[string]string{
		"past the end":  "77777777777", // 8 GiB
		"base-256, all": "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff",
		"pax":           "",
	} {
		b := pack(t, oneDisk(), fileIn{"disk.img", strings.Repeat("x", 3000)})
		at := strings.Index(string(b), "xxxxxxxx") - 512
		if name == "pax" {
			b = append(b[:at:at], packHeaders(t, []*tar.Header{{Name: "disk.img", Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "x"}}}, []fileIn{{}})...)
			// The record of the comment becomes one of the size, of the same length.
			b = []byte(strings.Replace(string(b), "13 comment=x\n", "13 size=9999\n", 1))
		} else {
			copy(b[at+124:at+136], size+"\x00")
			checksum(b[at : at+512])
		}
		both(t, b, formats.ErrCorrupt)
	}
}

// checksum makes a changed tar header right again.
func checksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestWhatIsNoTarIsOfAnotherFormat(t *testing.T) {
	for _, b := range []string{"", "x", strings.Repeat("\x00", 10240), strings.Repeat("text ", 4000), "QFI\xfb" + strings.Repeat("\x00", 1000)} {
		both(t, []byte(b), formats.ErrFormat)
	}
}

func TestManyMembersAndLongHeadersStopAtALimit(t *testing.T) {
	var many []fileIn
	for i := range 1025 {
		many = append(many, fileIn{name: fmt.Sprintf("f%d", i)})
	}
	both(t, pack(t, many...), formats.ErrLimit)

	// 512 KiB of pax records each, under the 1 MiB that archive/tar takes of one.
	var headers []*tar.Header
	for i := range 20 {
		headers = append(headers, &tar.Header{Name: fmt.Sprint("f", i), Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": strings.Repeat("x", 512<<10)}})
	}
	b := packHeaders(t, headers, make([]fileIn, len(headers)))
	before := allocated()
	if _, err := open(t, formattest.Memory(b)); !errors.Is(err, formats.ErrLimit) {
		t.Errorf("got %v", err)
	}
	if n := allocated() - before; n > 48<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
	both(t, b, formats.ErrLimit)

	// An extended header of 8 GiB.
	endless := packHeaders(t, headers[:1], make([]fileIn, 1))
	copy(endless[124:136], "77777777777\x00")
	checksum(endless[:512])
	both(t, append(endless, make([]byte, 2<<20)...), formats.ErrCorrupt)
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func TestHostileDescriptorsAreRefused(t *testing.T) {
	file := func(attrs string) string { return vmwareOVF([]string{attrs}, []string{`ovf:fileRef="f"`}) }
	good := file(`ovf:href="disk.img" ovf:id="f"`)
	for name, c := range map[string]struct {
		ovf  string
		want error
	}{
		"a DTD":                     {`<!DOCTYPE Envelope [<!ENTITY x SYSTEM "file:///etc/passwd">]>` + virtualBoxOVF("&x;"), formats.ErrCorrupt},
		"a DTD inside":              {strings.Replace(good, "<DiskSection>", "<!DOCTYPE a><DiskSection>", 1), formats.ErrCorrupt},
		"an entity":                 {virtualBoxOVF("&x;"), formats.ErrCorrupt},
		"not XML":                   {"disk = disk.img", formats.ErrCorrupt},
		"nothing":                   {"", formats.ErrCorrupt},
		"cut off":                   {good[:len(good)-20], formats.ErrCorrupt},
		"another root":              {"<html></html>", formats.ErrCorrupt},
		"two roots":                 {good + "<Envelope/>", formats.ErrCorrupt},
		"another encoding":          {strings.Replace(good, "UTF-8", "UTF-16", 1), formats.ErrCorrupt},
		"deep":                      {"<Envelope>" + strings.Repeat("<a>", 100), formats.ErrLimit},
		"long":                      {good + strings.Repeat(" ", 1<<20), formats.ErrLimit},
		"absolute path":             {file(`ovf:href="/etc/passwd" ovf:id="f"`), formats.ErrReference},
		"path to nothing":           {file(`ovf:href="sub/disk.img" ovf:id="f"`), formats.ErrCorrupt},
		"path of another system":    {file(`ovf:href="..\disk.img" ovf:id="f"`), formats.ErrReference},
		"encoded path":              {file(`ovf:href="..%2fdisk.img" ovf:id="f"`), formats.ErrReference},
		"parent":                    {file(`ovf:href=".." ovf:id="f"`), formats.ErrReference},
		"URL":                       {file(`ovf:href="http://169.254.169.254/disk.img" ovf:id="f"`), formats.ErrReference},
		"file URL":                  {file(`ovf:href="file:///etc/passwd" ovf:id="f"`), formats.ErrReference},
		"no name":                   {file(`ovf:href="" ovf:id="f"`), formats.ErrReference},
		"path of a file not a disk": {vmwareOVF([]string{`ovf:href="disk.img" ovf:id="f"`, `ovf:href="/etc/passwd" ovf:id="g"`}, []string{`ovf:fileRef="f"`}), formats.ErrReference},
		"missing member":            {file(`ovf:href="other.img" ovf:id="f"`), formats.ErrCorrupt},
		"other case":                {file(`ovf:href="DISK.img" ovf:id="f"`), formats.ErrCorrupt},
		"missing File":              {vmwareOVF([]string{`ovf:href="disk.img" ovf:id="g"`}, []string{`ovf:fileRef="f"`}), formats.ErrCorrupt},
		"two Files of one id":       {vmwareOVF([]string{`ovf:href="disk.img" ovf:id="f"`, `ovf:href="vm.ovf" ovf:id="f"`}, []string{`ovf:fileRef="f"`}), formats.ErrCorrupt},
		"two names":                 {file(`ovf:href="disk.img" href="vm.ovf" ovf:id="f"`), formats.ErrCorrupt},
		"other size":                {file(`ovf:href="disk.img" ovf:id="f" ovf:size="7"`), formats.ErrCorrupt},
		"no size":                   {file(`ovf:href="disk.img" ovf:id="f" ovf:size="big"`), formats.ErrCorrupt},
		"huge size":                 {file(`ovf:href="disk.img" ovf:id="f" ovf:size="99999999999999999999"`), formats.ErrCorrupt},
		"gzip inside":               {file(`ovf:href="disk.img" ovf:id="f" ovf:compression="gzip"`), formats.ErrUnsupported},
		"chunks":                    {file(`ovf:href="disk.img" ovf:id="f" ovf:chunkSize="1048576"`), formats.ErrUnsupported},
		"a second disk elsewhere":   {vmwareOVF([]string{`ovf:href="disk.img" ovf:id="f"`, `ovf:href="gone.img" ovf:id="g"`}, []string{`ovf:fileRef="f"`, `ovf:fileRef="g"`}), formats.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			src := formattest.Memory(pack(t, fileIn{"vm.ovf", c.ovf}, fileIn{"disk.img", "a disk"}))
			if o, err := open(t, src); !errors.Is(err, c.want) {
				t.Errorf("got %q, %v; want %v", o.Name, err, c.want)
			} else {
				t.Log(err)
			}
			if err := src.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
				t.Errorf("the source was closed: %v", err)
			}
		})
	}
	if _, err := open(t, formattest.Memory(pack(t, fileIn{"vm.ovf", good}, fileIn{"disk.img", "a disk"}))); err != nil {
		t.Errorf("the good one: %v", err)
	}
	both := pack(t, fileIn{"vm.ovf", good}, fileIn{"vm2.OVF", good}, fileIn{"disk.img", "a disk"})
	if _, err := open(t, formattest.Memory(both)); !errors.Is(err, formats.ErrCorrupt) {
		t.Errorf("two descriptors: %v", err)
	}
}

func TestReadErrorsArePassedOn(t *testing.T) {
	b := pack(t, fileIn{"big", strings.Repeat("x", 50000)}, oneDisk(), fileIn{"disk.img", strings.Repeat("x", 50000)})
	src := formattest.Memory(b)
	if _, err := open(t, src); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= src.Reads(); n++ {
		failing := formattest.Memory(b)
		failing.FailFrom(n)
		if _, err := open(t, failing); !errors.Is(err, formattest.ErrInjected) || errors.Is(err, formats.ErrCorrupt) || errors.Is(err, container.ErrNoDisk) {
			t.Errorf("read %d fails: %v", n, err)
		}
	}
}
