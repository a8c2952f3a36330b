package hostile

import (
	"archive/tar"
	"bytes"
	"fmt"
	"html"
	"strings"

	"glanced/formats"
	"glanced/formats/container"
)

// ovf is a descriptor of one disk in the file href.
func ovf(href, more string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f" ovf:href="` + html.EscapeString(href) + `" ` + more + `/></References>
<DiskSection><Info>disks</Info><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="32768"/></DiskSection>
</Envelope>`
}

// typedOVF is a descriptor of one disk in the file href, in the manner of OVF 0.9:
// with a Section of the type ovf:kind_Type for the disks, and more behind it.
func typedOVF(href, kind, more string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<ovf:Envelope xmlns:ovf="http://www.vmware.com/schema/ovf/1/envelope" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ovf:version="0.9">
<References><File ovf:id="f" ovf:href="` + html.EscapeString(href) + `"/></References>
<Section xsi:type="ovf:` + kind + `_Type"><Info>disks</Info><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="32768"/></Section>` + more + `
</ovf:Envelope>`
}

// member is a file of an archive: a name and its content, or a whole header.
type member struct {
	name, content string
	header        *tar.Header
}

func pack(members ...member) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.header
		if h == nil {
			h = &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.content))}
		}
		if err := w.WriteHeader(h); err != nil {
			panic(fmt.Sprintf("%s: %v", h.Name, err)) // the headers are ours
		}
		w.Write([]byte(m.content))
	}
	w.Close()
	return b.Bytes()
}

// reseal makes the checksum of the tar header at at right again.
func reseal(b []byte, at int) []byte {
	h := b[at:][:512]
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func ovaImages() []Image {
	m := &maker{format: "vmdk", container: "ova"}
	corrupt, limit, unsupported, reference := formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported, formats.ErrReference
	text := member{name: "vm.ovf", content: ovf("disk.vmdk", "")}
	disk := member{name: "disk.vmdk", content: string(vmdkStream(zlibbed(bytes.Repeat([]byte{'x'}, 8*sector))))}
	archive := func(name string, want error, members ...member) { m.add(Archive, name, want, Open, pack(members...)) }
	odd := func(name string, want error, h tar.Header) {
		archive(name, want, text, disk, member{header: &h})
	}
	archive("a duplicate name", corrupt, text, disk, disk)
	odd("a duplicate name by ./", corrupt, tar.Header{Name: "./disk.vmdk"})
	odd("an absolute name", corrupt, tar.Header{Name: "/etc/passwd"})
	odd("a name that leads out", corrupt, tar.Header{Name: "a/../../etc/passwd"})
	odd("a symbolic link", corrupt, tar.Header{Name: "x.vmdk", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	odd("a hard link", corrupt, tar.Header{Name: "x.vmdk", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"})
	odd("a character device", corrupt, tar.Header{Name: "x.vmdk", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5})
	odd("a block device", corrupt, tar.Header{Name: "x.vmdk", Typeflag: tar.TypeBlock, Devmajor: 8})
	odd("a pipe", corrupt, tar.Header{Name: "x.vmdk", Typeflag: tar.TypeFifo})
	odd("a name of 2 KiB", limit, tar.Header{Name: strings.Repeat("a", 2048), Format: tar.FormatPAX})
	archive("a disk that is a link", corrupt, text, member{header: &tar.Header{Name: "disk.vmdk", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}})
	archive("two descriptors", corrupt, text, disk, member{name: "other.ovf", content: text.content})
	archive("no descriptor", container.ErrNoDisk, disk)
	archive("a descriptor that names no disk", container.ErrNoDisk, member{name: "vm.ovf", content: "<Envelope/>"}, disk)
	archive("a disk that is not there", corrupt, text)
	var many []member
	for i := range 2000 {
		many = append(many, member{name: fmt.Sprint("f", i)})
	}
	archive("two thousand members", limit, many...)

	for name, size := range map[string]string{
		"a disk of 8 GiB, it says":             "77777777777\x00",
		"a disk of the most that base-256 can": "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff",
		"a disk of less than nothing":          "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
	} {
		b := pack(text, disk)
		at := bytes.Index(b, []byte("KDMV")) - 512
		copy(b[at+124:], size)
		m.add(Sizes, name, corrupt, Open, reseal(b, at))
	}
	b := pack(text, disk)
	m.add(Archive, "cut off in the disk", corrupt, Open, b[:bytes.Index(b, []byte("KDMV"))+1000])
	m.add(Archive, "no archive at all", formats.ErrFormat, Open, bytes.Repeat([]byte("text "), 4000))

	described := func(name string, want error, ovf string) {
		archive(name, want, member{name: "vm.ovf", content: ovf}, disk)
	}
	m.images = append(m.images, ovaFolders(disk)...)
	m.images = append(m.images, ovaTypes(disk)...)
	var laughs strings.Builder
	laughs.WriteString(`<!DOCTYPE Envelope [<!ENTITY l0 "ha">`)
	for i := range 30 {
		fmt.Fprintf(&laughs, `<!ENTITY l%d "&l%d;&l%d;&l%d;&l%d;">`, i+1, i, i, i, i)
	}
	described("a billion laughs", corrupt, laughs.String()+`]><Envelope>&l30;</Envelope>`)
	described("an entity that is a file", corrupt, `<!DOCTYPE Envelope [<!ENTITY x SYSTEM "file:///etc/passwd">]>`+strings.TrimPrefix(ovf("&x;", ""), `<?xml version="1.0" encoding="UTF-8"?>`))
	described("a DTD elsewhere", corrupt, `<!DOCTYPE Envelope SYSTEM "http://169.254.169.254/x.dtd"><Envelope/>`)
	described("an entity that nobody declared", corrupt, strings.Replace(ovf("X", ""), "X", "&x;", 1))
	described("elements a hundred deep", limit, "<Envelope>"+strings.Repeat("<a>", 100))
	described("a descriptor of 2 MiB", limit, ovf("disk.vmdk", "")+strings.Repeat(" ", 2<<20))
	described("no XML", corrupt, "disk = disk.vmdk")
	described("a lie about the disk's size", corrupt, ovf("disk.vmdk", `ovf:size="7"`))
	described("a disk of ZiB", corrupt, ovf("disk.vmdk", `ovf:size="99999999999999999999999"`))
	described("gzip inside", unsupported, ovf("disk.vmdk", `ovf:compression="gzip"`))
	described("a disk in chunks", unsupported, ovf("disk.vmdk", `ovf:chunkSize="1048576"`))
	archive("a disk that names files beside it, which are not there", reference, text,
		member{name: "disk.vmdk", content: vmdkText("monolithicFlat", `RW 64 FLAT "other.vmdk" 0`, "")})
	archive("a disk in parts that are the archive's descriptor", corrupt, text,
		member{name: "disk.vmdk", content: vmdkText("twoGbMaxExtentSparse", `RW 64 SPARSE "vm.ovf"`, "")})

	m.add(Chain, "a disk that is a part of itself", corrupt, Open, pack(text,
		member{name: "disk.vmdk", content: vmdkText("twoGbMaxExtentSparse", `RW 64 SPARSE "disk.vmdk"`, "")}))
	m.add(Chain, "an archive in an archive", formats.ErrFormat, Open, pack(text, member{name: "disk.vmdk", content: string(pack(text, disk))}))
	m.add(Streams, "a disk of noise", corrupt, Read, pack(text, member{name: "disk.vmdk", content: string(vmdkStream(bytes.Repeat([]byte("\xff\x00\xa5"), 300)))}))
	m.add(Entries, "a grain past the disk, in the archive's next file", corrupt, Map, pack(text,
		member{name: "disk.vmdk", content: string(ovaGrainBehind())}, member{name: "secret", content: strings.Repeat("secret ", 4<<10)}))
	m.add(Amplification, "1 GiB from one grain", nil, Open, pack(text, member{name: "disk.vmdk", content: string(vmdkAmplified(512))}))
	return m.images
}

// ovaFolders are archives whose disk is in a folder, or is said to be.
func ovaFolders(disk member) []Image {
	m := &maker{format: "vmdk", container: "ova"}
	corrupt, limit, reference := formats.ErrCorrupt, formats.ErrLimit, formats.ErrReference
	inFolder := member{name: "disks/disk.vmdk", content: disk.content}
	named := func(name string, want error, href string, members ...member) {
		m.add(Archive, name, want, Open, pack(append([]member{{name: "vm.ovf", content: ovf(href, "")}}, members...)...))
	}
	named("an href that leads up and down again", reference, "disks/../disks/disk.vmdk", inFolder)
	named("an href that leads up, encoded", reference, "disks/%2e%2e/disks/disk.vmdk", inFolder)
	named("an absolute href", reference, "/disks/disk.vmdk", inFolder)
	named("an absolute href, encoded", reference, "%2fdisks/disk.vmdk", inFolder)
	named("an href of another system", reference, `disks\disk.vmdk`, inFolder)
	named("an href with an empty part", reference, "disks//disk.vmdk", inFolder)
	named("an href that is a folder", reference, "disks/", inFolder)
	named("an href with a scheme", reference, "file:disks/disk.vmdk", inFolder)
	named("an href in other letters", corrupt, "Disks/Disk.vmdk", inFolder)
	named("an href of ten thousand folders", corrupt, strings.Repeat("d/", 10_000)+"disk.vmdk", inFolder)
	named("a disk in 400 folders", nil, strings.Repeat("d/", 400)+"disk.vmdk", member{name: strings.Repeat("d/", 400) + "disk.vmdk", content: disk.content})
	named("a disk in a thousand folders", limit, "disks/disk.vmdk", inFolder, member{name: strings.Repeat("d/", 1000) + "disk.vmdk"})
	named("a disk and one in other letters", nil, "disks/disk.vmdk", member{name: "disks/DISK.vmdk", content: "secret"}, inFolder)
	named("a disk in two spellings", corrupt, "disks/disk.vmdk", inFolder, member{name: "disks/.//disk.vmdk", content: "secret"})
	named("a folder that is a link", corrupt, "disks/passwd", member{header: &tar.Header{Name: "disks", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}, inFolder)
	named("a disk that is a link in a folder", corrupt, "disks/x.vmdk", inFolder, member{header: &tar.Header{Name: "disks/x.vmdk", Typeflag: tar.TypeSymlink, Linkname: "../../../etc/passwd"}})
	named("a disk that is a hard link in a folder", corrupt, "disks/x.vmdk", inFolder, member{header: &tar.Header{Name: "disks/x.vmdk", Typeflag: tar.TypeLink, Linkname: "disks/disk.vmdk"}})
	for name, extent := range map[string]string{"in the folder above": "../flat", "at the top": "flat", "in a folder": "disks/flat"} {
		text := vmdkText("vmfs", `RW 64 VMFS "`+extent+`"`, "")
		named("an extent of ESX "+name, reference, "disks/disk.vmdk", member{name: "disks/disk.vmdk", content: text}, member{name: "flat", content: strings.Repeat("secret! ", 4096)})
	}
	return m.images
}

// ovaTypes are archives with a descriptor of OVF 0.9, which says by their types what
// its sections are.
func ovaTypes(disk member) []Image {
	m := &maker{format: "vmdk", container: "ova"}
	described := func(name string, want error, ovf string) {
		m.add(Archive, name, want, Open, pack(member{name: "vm.ovf", content: ovf}, disk, member{name: "other.vmdk", content: "secret"}))
	}
	corrupt := formats.ErrCorrupt
	newer := `<DiskSection><Disk ovf:diskId="d" ovf:fileRef="g"/></DiskSection>`
	good := typedOVF("disk.vmdk", "DiskSection", "")
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	described("one disk for OVF 0.9, another for 1.0", corrupt, strings.Replace(typedOVF("disk.vmdk", "DiskSection", newer), "</References>", `<File ovf:id="g" ovf:href="other.vmdk"/></References>`, 1))
	described("files for OVF 0.9, and other ones for 1.0", corrupt, typedOVF("disk.vmdk", "DiskSection", `<Section xsi:type="ovf:References_Type"><File ovf:id="f2" ovf:href="other.vmdk"/></Section>`))
	described("a section of two types", corrupt, swap(`xsi:type=`, `xsi:type="ovf:NetworkSection_Type" xsi:type=`))
	described("disks that are said to be networks", corrupt, swap("</ovf:", `<DiskSection xsi:type="ovf:NetworkSection_Type"/></ovf:`))
	described("a type with a path in it", container.ErrNoDisk, typedOVF("disk.vmdk", "DiskSection/Disk", ""))
	described("a type of 64 KiB", container.ErrNoDisk, typedOVF("disk.vmdk", strings.Repeat("Disk", 16<<10), ""))
	described("a type of no schema", container.ErrNoDisk, swap("http://www.w3.org/2001/XMLSchema-instance", "urn:other"))
	described("a type that is an entity", corrupt, swap("ovf:DiskSection", "&x;"))
	described("a disk by an href that two files have", corrupt, strings.NewReplacer(`fileRef="f"`, `fileRef="disk.vmdk"`, "</References>", `<File ovf:id="g" ovf:href="disk.vmdk"/></References>`).Replace(good))
	described("a disk of oVirt outside of the archive", formats.ErrReference, strings.Replace(typedOVF("/rhev/data-center/disk.vmdk", "DiskSection", ""), `fileRef="f"`, `fileRef="/rhev/data-center/disk.vmdk"`, 1))
	return m.images
}

// ovaGrainBehind is a vmdk whose first grain lies behind its end.
func ovaGrainBehind() []byte {
	b := vmdkPlain()
	le.PutUint32(b[vTableAt*sector:], uint32(len(b)/sector)+2)
	return b
}

var ovaPlaces = []place{
	{"vmdk", "ova", "the href of the disk", formats.ErrReference, func(name string) []byte {
		return pack(member{name: "vm.ovf", content: ovf(name, "")}, member{name: "disk.vmdk", content: string(vmdkPlain())})
	}},
	{"vmdk", "ova", "an extent of the disk", formats.ErrReference, func(name string) []byte {
		return pack(member{name: "vm.ovf", content: ovf("disk.vmdk", "")},
			member{name: "disk.vmdk", content: vmdkText("monolithicFlat", fmt.Sprintf(`RW 64 FLAT "%s" 0`, unquoted(name)), "")})
	}},
	{"vmdk", "ova", "the href of a disk of OVF 0.9", formats.ErrReference, func(name string) []byte {
		return pack(member{name: "vm.ovf", content: typedOVF(name, "DiskSection", "")}, member{name: "disk.vmdk", content: string(vmdkPlain())})
	}},
	{"vmdk", "ova", "the extent of a flat disk of ESX", formats.ErrReference, func(name string) []byte {
		return pack(member{name: "vm.ovf", content: ovf("disks/disk.vmdk", "")},
			member{name: "disks/disk.vmdk", content: vmdkText("vmfs", fmt.Sprintf(`RW 64 VMFS "%s"`, unquoted(name)), "")})
	}},
	{"qcow2", "ova", "the backing file of the disk", formats.ErrReference, func(name string) []byte {
		return pack(member{name: "vm.ovf", content: ovf("disk.qcow2", "")}, member{name: "disk.qcow2", content: string(qcow2Backing(qcow2(), name))})
	}},
}

// ArchivesWithWrongManifests are OVAs whose manifest has another digest of the
// disk than the disk has, by name. Their disks are good or bad.
func ArchivesWithWrongManifests() map[string][]byte {
	text := member{name: "vm.ovf", content: ovf("disk.vmdk", "")}
	wrong := member{name: "vm.mf", content: "SHA256(disk.vmdk)= " + strings.Repeat("0", 64) + "\n"}
	good := member{name: "disk.vmdk", content: string(vmdkPlain())}
	bad := member{name: "disk.vmdk", content: vmdkText("monolithicFlat", `RW 64 FLAT "/etc/passwd" 0`, "")}
	return map[string][]byte{
		"a good disk":           pack(text, wrong, good),
		"a manifest at the end": pack(text, good, wrong),
		"a disk that names":     pack(text, wrong, bad),
	}
}
