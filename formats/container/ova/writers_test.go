package ova_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/formattest"
)

// virtualCenterOVF is a descriptor in the manner of VirtualCenter 2.5, which wrote
// OVF 0.9: sections are known by their types only.
func virtualCenterOVF(href string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<ovf:Envelope xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:ovf="http://www.vmware.com/schema/ovf/1/envelope" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ovf:version="0.9">
  <References>
    <File ovf:href="` + href + `" ovf:id="file1"/>
  </References>
  <Section xsi:type="ovf:NetworkSection_Type"><Info>Networks</Info><Network ovf:name="VM Network"/></Section>
  <Section xsi:type="ovf:DiskSection_Type">
    <Info>Meta-information about the virtual disks</Info>
    <Disk ovf:capacity="1073741824" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/specifications/vmdk.html#sparse"/>
  </Section>
  <Content ovf:id="vm" xsi:type="ovf:VirtualSystem_Type">
    <Info>A virtual machine</Info>
    <Section xsi:type="ovf:VirtualHardwareSection_Type"><Item><Disk ovf:fileRef="nothing"/></Item></Section>
  </Content>
</ovf:Envelope>
`
}

// oVirtOVF is a descriptor in the manner of ovirt-engine: a disk says its file by
// the href, and the size is what oVirt's storage holds of it.
func oVirtOVF(href string, size int) string {
	id := href[strings.LastIndexByte(href, '/')+1:]
	return `<?xml version="1.0" encoding="UTF-8"?><ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ovf:version="4.4.0.0">` +
		fmt.Sprintf(`<References><File ovf:href="%s" ovf:id="%s" ovf:size="%d" ovf:description="Active VM" ovf:disk_storage_type="IMAGE"></File><Nic ovf:id="n"></Nic></References>`, href, id, size) +
		`<NetworkSection><Info>List of networks</Info></NetworkSection><Section xsi:type="ovf:DiskSection_Type"><Info>List of Virtual Disks</Info>` +
		fmt.Sprintf(`<Disk ovf:diskId="%s" ovf:size="40" ovf:actual_size="1" ovf:parentRef="" ovf:fileRef="%s" ovf:format="http://www.gnome.org/~markmc/qcow-image-format.html" ovf:volume-format="COW" ovf:boot="true"></Disk></Section>`, id, href) +
		`<Content ovf:id="out" xsi:type="ovf:VirtualSystem_Type"><Name>vm</Name></Content></ovf:Envelope>`
}

func TestReadsTheDescriptorsOfOldAndOtherWriters(t *testing.T) {
	old := virtualCenterOVF("disk.img")
	swap := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(old) }
	group := "25534d4f-d07d-459d-a9ef-3ed733cbcdef/90b62105-4ae8-4a4b-826b-dfe970ae28d9"
	for name, c := range map[string]struct{ ovf, disk string }{
		"VirtualCenter 2.5":         {old, "disk.img"},
		"VirtualBox's OVF 0.9":      {swap("ovf:Envelope", "Envelope", `xmlns:vssd="`, `xmlns="http://www.vmware.com/schema/ovf/1/envelope" xmlns:vssd="`), "disk.img"},
		"every element prefixed":    {swap("<Section", "<ovf:Section", "</Section", "</ovf:Section", "<Disk", "<ovf:Disk", "<References", "<ovf:References", "</References", "</ovf:References", "<File", "<ovf:File"), "disk.img"},
		"references by type too":    {swap("<References>", `<Section xsi:type="ovf:References_Type">`, "</References>", "</Section>"), "disk.img"},
		"a type without a prefix":   {swap("ovf:DiskSection_Type", " DiskSection_Type "), "disk.img"},
		"another prefix for types":  {swap("xmlns:xsi", "xmlns:i", "xsi:type", "i:type"), "disk.img"},
		"a prefix nobody declared":  {swap(` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"`, ""), "disk.img"},
		"1.0 that says types too":   {swap("<Section xsi:type=\"ovf:DiskSection_Type\">", "<DiskSection xsi:type=\"ovf:DiskSection_Type\">", "</Section>\n  <Content", "</DiskSection>\n  <Content"), "disk.img"},
		"oVirt":                     {oVirtOVF(group, 12), group},
		"oVirt, and a plain volume": {oVirtOVF("90b62105-4ae8-4a4b-826b-dfe970ae28d9", 6), "90b62105-4ae8-4a4b-826b-dfe970ae28d9"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := open(t, formattest.Memory(pack(t, fileIn{"vm.ovf", c.ovf}, fileIn{c.disk, "a disk"})))
			if err != nil {
				t.Fatal(err)
			}
			if o.Name != c.disk || content(t, o.Image) != "a disk" || len(o.Others) > 0 {
				t.Errorf("%q (others %q) has other content", o.Name, o.Others)
			}
		})
	}
}

// A type can make one descriptor two, for readers of different versions.
func TestHostileTypesOfSectionsAreRefused(t *testing.T) {
	old := virtualCenterOVF("disk.img")
	swap := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(old) }
	more := func(section string) string { return swap("  <Content", section+"\n  <Content") }
	for name, c := range map[string]struct {
		ovf  string
		want error
	}{
		"disks of both versions":         {more(`<DiskSection><Disk ovf:diskId="d" ovf:fileRef="file1"/></DiskSection>`), formats.ErrCorrupt},
		"an empty section of the other":  {more(`<DiskSection/>`), formats.ErrCorrupt},
		"references of both versions":    {more(`<Section xsi:type="ovf:References_Type"><File ovf:id="f2" ovf:href="disk.img"/></Section>`), formats.ErrCorrupt},
		"two types":                      {swap(`xsi:type="ovf:DiskSection_Type"`, `xsi:type="ovf:DiskSection_Type" xsi:type="ovf:NetworkSection_Type"`), formats.ErrCorrupt},
		"two types, by another prefix":   {swap(`xsi:type="ovf:DiskSection_Type"`, `xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:type="ovf:NetworkSection_Type" xsi:type="ovf:DiskSection_Type"`), formats.ErrCorrupt},
		"a name against its type":        {more(`<DiskSection xsi:type="ovf:NetworkSection_Type"/>`), formats.ErrCorrupt},
		"references that are disks":      {swap("<References>", `<References xsi:type="ovf:DiskSection_Type">`), formats.ErrCorrupt},
		"disks as content":               {swap("ovf:VirtualSystem_Type", "ovf:DiskSection_Type"), formats.ErrCorrupt},
		"a network that is disks":        {more(`<NetworkSection xsi:type="ovf:DiskSection_Type"/>`), formats.ErrCorrupt},
		"a type that is a path":          {swap("ovf:DiskSection_Type", "ovf:DiskSection/Disk_Type"), container.ErrNoDisk},
		"a type of two prefixes":         {swap("ovf:DiskSection_Type", "a:ovf:DiskSection_Type"), container.ErrNoDisk},
		"a type in capitals":             {swap("DiskSection_Type", "DISKSECTION_TYPE"), container.ErrNoDisk},
		"a type of another namespace":    {swap("xsi:type", `type`), container.ErrNoDisk},
		"the prefix of something else":   {swap("http://www.w3.org/2001/XMLSchema-instance", "urn:x"), container.ErrNoDisk},
		"disks deeper":                   {swap(`<Section xsi:type="ovf:DiskSection_Type">`, `<Section xsi:type="ovf:X_Type"><Section xsi:type="ovf:DiskSection_Type">`, "</Section>\n  <Content", "</Section></Section>\n  <Content"), container.ErrNoDisk},
		"no such file, by id and href":   {swap(`fileRef="file1"`, `fileRef="disk"`), formats.ErrCorrupt},
		"two files of the href it says":  {swap(`fileRef="file1"`, `fileRef="disk.img"`, "</References>", `<File ovf:href="disk.img" ovf:id="file2" ovf:compression="gzip"/></References>`), formats.ErrCorrupt},
		"an absolute path in oVirt":      {oVirtOVF("/rhev/data-center/disk.img", 6), formats.ErrReference},
		"a path upwards in oVirt":        {oVirtOVF("../disk.img", 6), formats.ErrReference},
		"compressed, by its href":        {strings.Replace(oVirtOVF("disk.img", 6), "ovf:description", `ovf:compression="gzip" ovf:description`, 1), formats.ErrUnsupported},
		"a disk that oVirt keeps itself": {oVirtOVF("group/volume", 6), formats.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := open(t, formattest.Memory(pack(t, fileIn{"vm.ovf", c.ovf}, fileIn{"disk.img", "a disk"})))
			if !errors.Is(err, c.want) {
				t.Errorf("got %q, %v; want %v", o.Name, err, c.want)
			}
		})
	}
}
