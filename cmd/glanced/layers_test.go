package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layer is one rule of the house: packages below `room` may import, of this
// module, only what `may` lists (and their own subtree unless alone is set).
type layer struct {
	room  string
	may   []string
	alone bool // its subfolders may not import each other
	why   string
}

// layers is ordered from the most specific room to the widest; the first that
// matches a package decides.
var layers = []layer{
	{"backends/all", []string{"backends"}, false, "the visible list of stores, nothing else"},
	{"backends/backendtest", []string{"backends"}, false, "the store contract as tests must fit every store"},
	{"backends", []string{"backends"}, true, "a store keeps bytes: it knows no formats, images or protocols, and no other store"},
	{"formats/all", []string{"formats"}, false, "the visible list of formats, nothing else"},
	{"formats/container/spool", []string{"formats", "formats/container", "formats/localfile"}, true, "the spool keeps decompressed files; it knows no kind of container"},
	{"formats/container", []string{"formats", "formats/container"}, true, "a container holds an image: it knows no disk format, and no other container"},
	{"formats/encode", []string{"formats", "formats/codec"}, true, "writing an image needs a disk's map, not the format it came from"},
	{"formats/localfile", []string{"formats"}, false, "an open local file as a source; it knows no format, and opens no names"},
	{"formats/formattest", []string{"formats", "formats/container"}, true, "images and checks for tests fit every driver and container: they know the contracts, and neither a driver nor a program"},
	{"formats", []string{"formats", "formats/codec"}, true, "a format maps: it knows no network, paths or catalog, and no other format"},
	{"catalog/records", []string{"catalog/records"}, true, "records know nothing of bytes"},
	{"catalog", []string{"catalog/records", "backends", "formats", "formats/container"}, false, "the catalog knows no protocol and no concrete store, format or database: they are handed in"},
	{"nbd", []string{"formats"}, false, "the NBD wire serves disks; it knows neither the catalog nor stores"},
	{"fs", []string{"catalog", "formats"}, false, "the FUSE tree shows the catalog; it knows no stores"},
	{"ctl", []string{"catalog", "formats/encode"}, false, "the API speaks to the catalog only, and sends disks in other formats"},
	{"cmd/glancectl", []string{"formats", "formats/all", "formats/goqcow2", "formats/localfile", "formats/container", "formats/container/spool", "formats/encode"}, false, "the CLI is a client: HTTP, and the formats for offline work"},
	{"cmd/glanced", []string{"ctl", "fs", "nbd", "catalog", "catalog/records", "catalog/records/sqlite", "backends", "backends/all", "formats", "formats/all", "formats/container/spool"}, false, "the daemon wires the rooms together"},
	{"contrib", []string{}, false, "contrib holds tools of its own; they drive the programs from outside"},
}

func TestImportsFollowTheDesign(t *testing.T) {
	for _, p := range modulePackages(t) {
		rule, ok := ruleFor(p.ImportPath)
		if !ok {
			t.Errorf("%s lives in no room of the design: give it one in layers_test.go, with a reason", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "glanced/") && !rule.allows(p.ImportPath, imp) {
				t.Errorf("%s imports %s: %s (%s)", p.ImportPath, imp, rule.room, rule.why)
			}
		}
	}
}

func TestALayerBreakIsSeen(t *testing.T) {
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"glanced/formats/qcow2", "glanced/formats", true},
		{"glanced/formats/qcow2", "glanced/formats/vmdk", false},
		{"glanced/formats", "glanced/backends", false},
		{"glanced/formats/container/ova", "glanced/formats/vmdk", false},
		{"glanced/formats/encode", "glanced/formats/qcow2", false},
		{"glanced/formats/formattest/hostile", "glanced/formats/qcow2", false},
		{"glanced/formats/qcow2", "glanced/formats/formattest/hostile", false},
		{"glanced/nbd", "glanced/catalog", false},
		{"glanced/catalog", "glanced/backends/file", false},
		{"glanced/backends/all", "glanced/backends/file", true},
		{"glanced/cmd/glancectl", "glanced/catalog", false},
	} {
		rule, ok := ruleFor(c.from)
		if !ok || rule.allows(c.from, c.to) != c.allowed {
			t.Errorf("%s importing %s: want allowed=%v", c.from, c.to, c.allowed)
		}
	}
}

func ruleFor(pkg string) (layer, bool) {
	rel := strings.TrimPrefix(pkg, "glanced/")
	for _, l := range layers {
		if rel == l.room || strings.HasPrefix(rel, l.room+"/") {
			return l, true
		}
	}
	return layer{}, false
}

func (l layer) allows(pkg, imp string) bool {
	rel, from := strings.TrimPrefix(imp, "glanced/"), strings.TrimPrefix(pkg, "glanced/")
	for _, m := range l.may {
		if rel == m {
			return true
		}
	}
	if strings.HasSuffix(l.room, "/all") { // a list may import every entry of its folder
		return strings.HasPrefix(rel, strings.TrimSuffix(l.room, "all"))
	}
	if l.alone {
		return strings.HasPrefix(rel, from+"/internal/")
	}
	return rel == l.room || strings.HasPrefix(rel, l.room+"/")
}

type listed struct {
	ImportPath string
	Imports    []string
}

// modulePackages asks the go command, so that build tags and files count as they are built.
func modulePackages(t *testing.T) []listed {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "glanced/...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list named only %d packages: the test looks at nothing", len(pkgs))
	}
	return pkgs
}
