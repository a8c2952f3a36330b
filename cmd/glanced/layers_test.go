package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layer is one rule of the house: the packages of room (the folder and what is
// below it, rooms of their own excepted) import, of this module, only what may
// lists and their own internal folders, and reach by no chain of imports what
// never lists.
type layer struct {
	room  string
	may   []string // a folder; with /..., all below it
	never []string // the same, also of other modules and of the standard library
	why   string
}

// The leaves, which most rooms stand on.
const (
	bytesAtRest = "backends/stored"
	localFiles  = "backends/localfile"
	sharedWork  = "backends/flight"
	memory      = "backends/budget"
	spooled     = "backends/spool"
)

// layers is ordered from the most specific room to the widest; the first that
// matches a package decides.
var layers = []layer{
	{"backends/stored", nil, []string{"net"}, "the contract for bytes at rest, which stores and formats share, stands on nothing"},
	{"backends/localfile", []string{bytesAtRest}, []string{"net"}, "a local file as bytes at rest; it opens no names"},
	{"backends/flight", nil, []string{"net", "os"}, "work that is shared knows nothing of what it is for"},
	{"backends/locks", nil, []string{"net", "os"}, "locks by name know nothing of what they guard"},
	{"backends/budget", nil, []string{"net", "os"}, "bytes that are shared know nothing of who takes them"},
	{"backends/replicas", []string{bytesAtRest, sharedWork}, []string{"net"}, "one object at several places is read as one; where they are is not its matter"},
	{"backends/retry", []string{"backends", bytesAtRest}, []string{"net"}, "what is repeated is no matter of the kind of store"},
	{"backends/spool", []string{bytesAtRest, localFiles, memory, sharedWork}, []string{"net"}, "a spool keeps streams as files; it knows neither where they come from nor what they are"},
	{"backends/cache", []string{"backends", bytesAtRest, memory}, []string{"net", "glanced/formats/...", "glanced/catalog/..."}, "the cache keeps bytes of any store; which one, and what the bytes are, is not its matter"},
	{"backends/all", []string{"backends/..."}, []string{"glanced/formats/...", "glanced/catalog/..."}, "the visible list of stores, nothing else"},
	{"backends/backendtest", []string{"backends", bytesAtRest}, nil, "the store contract as tests must fit every store"},
	{"backends/upload", []string{"backends"}, []string{"net", "glanced/formats/...", "glanced/catalog/..."}, "the frame of an upload fits every store behind a network; what is sent to whom is the driver's"},
	{"backends/overhttp", []string{bytesAtRest}, []string{"glanced/formats/...", "glanced/catalog/..."}, "what stores that are reached over HTTP share; it makes no request"},
	{"backends/setting", nil, []string{"net"}, "how quantities are written is no matter of what they are of"},
	{"backends", []string{"backends", "backends/locks", "backends/overhttp", "backends/retry", "backends/setting", "backends/upload", bytesAtRest, localFiles, spooled, sharedWork}, []string{"glanced/formats/...", "glanced/catalog/..."}, "a store keeps bytes: it knows no formats, images or protocols, and no other store"},

	{"formats/all", []string{"formats/..."}, []string{"glanced/formats/engine", "net"}, "the visible list of formats, nothing else"},
	{"formats/codec", nil, []string{"net", "os/exec"}, "decoders of coded bytes"},
	{"formats/engine", []string{"formats", "formats/codec", bytesAtRest, sharedWork, memory}, []string{"net", "os/exec"}, "the engine moves what any format maps: it knows none of them, no paths and no network"},
	{"formats/check", []string{"formats", "formats/engine"}, []string{"net"}, "what is wrong with a disk shows in its map and its data, whatever the format"},
	{"formats/encode", []string{"formats", "formats/codec"}, []string{"net"}, "writing an image needs a disk's map, not the format it came from"},
	{"formats/goqcow2", []string{"formats"}, nil, "a disk in the shape of another library's image"},
	{"formats/container/spool", []string{"formats", "formats/container", bytesAtRest, spooled}, []string{"net"}, "the spool keeps decompressed files; it knows no kind of container"},
	{"formats/container", []string{"formats", "formats/container", bytesAtRest}, []string{"net", "os/exec", "glanced/formats/engine"}, "a container holds an image: it knows no disk format, and no other container"},
	{"formats/formattest", []string{"formats", "formats/container", "formats/engine", bytesAtRest, localFiles, "contrib/testbed"}, nil, "images and checks for tests fit every driver and container: they know the contracts, and neither a driver nor a program"},
	{"formats", []string{"formats", bytesAtRest}, []string{"net", "os/exec", "glanced/formats/engine"}, "a format maps: it knows no network, paths or catalog, no other format, and not who moves the bytes"},

	{"catalog/access/hostuser", []string{"catalog/access"}, []string{"glanced/formats/...", "glanced/backends/..."}, "who is at the other end of a socket is asked of the host"},
	{"catalog/access", []string{"catalog/records"}, []string{"net", "glanced/formats/...", "glanced/backends/..."}, "who may do what with an image is told by its record alone; who asks, and over what, is not its matter"},
	{"catalog/fields", []string{"catalog/access", "catalog/records"}, []string{"net", "database/sql", "glanced/catalog", "glanced/catalog/rules", "glanced/formats/...", "glanced/backends/..."}, "what an image has is one table that doors, databases and the command line are built from: it knows none of them"},
	{"catalog/records/recordstest", []string{"catalog/records", "catalog/rules"}, []string{"glanced/formats/...", "glanced/backends/...", "database/sql"}, "the contract of records, and the rules above it, as tests must fit every database"},
	{"catalog/records/sqltx", []string{"catalog/fields", "catalog/records"}, []string{"glanced/catalog/rules", "glanced/formats/...", "glanced/backends/..."}, "statements that databases share know neither a database nor the rules"},
	{"catalog/records", []string{"catalog/records", "catalog/records/sqltx"}, []string{"glanced/catalog/rules", "glanced/formats/...", "glanced/backends/..."}, "records are rows: they know nothing of bytes, and decide nothing"},
	{"catalog/rules", []string{"catalog/access", "catalog/records"}, []string{"database/sql", "glanced/formats/...", "glanced/backends/...", "net"}, "the rules of records know no database, and no bytes"},
	{"catalog/stores", []string{"catalog/records", "backends", bytesAtRest}, []string{"net/http", "glanced/catalog/rules", "glanced/formats/...", "database/sql"}, "the configured stores keep what records say; what an image may be is not their matter"},
	{"catalog/leases", []string{"catalog/records", "catalog/rules"}, []string{"net/http", "glanced/formats/...", "glanced/backends/...", "database/sql"}, "leases are kept for whoever works under them; what that is, is not their matter"},
	{"catalog/disks", []string{"catalog/access", "catalog/records", "catalog/rules", "catalog/stores", "backends", "backends/replicas", bytesAtRest, "formats", "formats/container", "formats/engine"}, []string{"net/http", "glanced/catalog", "glanced/catalog/intake", "glanced/catalog/leases", "database/sql"}, "what is open is read and withdrawn; how an image came in, and what changes it, is not its matter"},
	{"catalog/intake", []string{"catalog/access", "catalog/disks", "catalog/fields", "catalog/leases", "catalog/records", "catalog/rules", "catalog/stores", "backends", memory, "formats", "formats/container"}, []string{"net/http", "glanced/catalog", "database/sql"}, "images are taken in whoever sends them; the catalog's door is above, and no protocol is known"},
	{"catalog", []string{"catalog/access", "catalog/disks", "catalog/fields", "catalog/intake", "catalog/leases", "catalog/records", "catalog/rules", "catalog/stores", memory, "formats", "formats/container", "formats/engine"}, []string{"net/http", "glanced/backends/file", "glanced/formats/qcow2", "database/sql"}, "the catalog knows no protocol and no concrete store, format or database: they are handed in; what is open and what comes in are rooms of their own"},

	{"nbd", []string{"nbd", "formats", "formats/engine", bytesAtRest, memory}, []string{"glanced/catalog/...", "glanced/backends", "net/http"}, "the NBD wire serves disks; it knows neither the catalog nor stores"},
	{"fs", []string{"catalog", "catalog/access", "catalog/fields", "formats", bytesAtRest, memory}, []string{"glanced/backends/file", "net/http"}, "the FUSE tree shows the catalog; it knows no stores"},
	{"ctl/keystone", []string{"ctl", sharedWork, memory, "backends/setting"}, []string{"glanced/nbd", "glanced/fs", "glanced/backends/swift"}, "whose a token is, is asked of Keystone; what they may do, and with what, is not its matter"},
	{"ctl", []string{"catalog", "catalog/access", "catalog/fields", "formats/encode", "formats/engine", bytesAtRest, memory}, []string{"glanced/backends/file", "glanced/nbd", "glanced/fs"}, "the API speaks to the catalog only, and sends disks in other formats"},

	{"cmd/glancectl", []string{"cmd/glancectl/internal/glanceapi", "catalog/fields", "formats", "formats/all", "formats/check", "formats/goqcow2", "formats/container", "formats/container/spool", "formats/encode", "formats/engine", bytesAtRest, localFiles}, []string{"glanced/catalog", "glanced/catalog/rules", "database/sql", "glanced/ctl", "glanced/backends"}, "the CLI is a client: HTTP, what an image has, and the formats for offline work"},
	{"cmd/glanced", []string{"ctl", "ctl/keystone", "fs", "nbd", "catalog", "catalog/access", "catalog/access/hostuser", "catalog/records", "catalog/records/postgres", "catalog/records/sqlite", "backends", "backends/all", "backends/cache", "backends/setting", bytesAtRest, memory, "formats", "formats/all", "formats/container/spool", "formats/engine"}, nil, "the daemon wires the rooms together"},
	{"contrib", []string{"contrib/distance"}, []string{"glanced/catalog/...", "glanced/formats/...", "glanced/backends/..."}, "contrib holds tools of its own; they drive the programs from outside"},
}

func TestImportsFollowTheDesign(t *testing.T) {
	pkgs := modulePackages(t)
	used := map[string]bool{} // rooms, and rooms with what they may import
	for _, p := range pkgs {
		rule, ok := ruleFor(p.ImportPath)
		if !ok {
			t.Errorf("%s lives in no room of the design: give it one in layers_test.go, with a reason", p.ImportPath)
			continue
		}
		used[rule.room] = true
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, "glanced/") {
				continue
			}
			by, ok := rule.allows(p.ImportPath, imp)
			used[rule.room+" "+by] = true
			if !ok {
				t.Errorf("%s imports %s: %s (%s)", p.ImportPath, imp, rule.room, rule.why)
			}
		}
		for _, dep := range p.Deps {
			if pattern, ok := rule.forbids(dep); ok {
				t.Errorf("%s reaches %s, which %s never may (%s): %s", p.ImportPath, pattern, rule.room, rule.why, strings.Join(wayTo(pkgs, p.ImportPath, dep), " > "))
			}
		}
	}
	// A rule that nothing follows any more would let the next mistake through.
	for _, l := range layers {
		if !used[l.room] {
			t.Errorf("no package is in room %s: the rule is stale", l.room)
		}
		for _, m := range l.may {
			if !used[l.room+" "+m] {
				t.Errorf("room %s may import %s, and nothing in it does: the rule is stale", l.room, m)
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
		{"glanced/formats/qcow2", "glanced/formats/engine", false},
		{"glanced/formats/engine", "glanced/formats/qcow2", false},
		{"glanced/formats", "glanced/backends", false},
		{"glanced/formats/container/ova", "glanced/formats/vmdk", false},
		{"glanced/formats/encode", "glanced/formats/qcow2", false},
		{"glanced/formats/formattest/hostile", "glanced/formats/qcow2", false},
		{"glanced/formats/qcow2", "glanced/formats/formattest/hostile", false},
		{"glanced/nbd", "glanced/catalog", false},
		{"glanced/catalog", "glanced/backends/file", false},
		{"glanced/catalog", "glanced/backends/replicas", false},
		{"glanced/catalog/disks", "glanced/catalog/intake", false},
		{"glanced/catalog/intake", "glanced/catalog", false},
		{"glanced/ctl", "glanced/catalog/intake", false},
		{"glanced/backends/all", "glanced/backends/file", true},
		{"glanced/backends/file", "glanced/backends/http", false},
		{"glanced/cmd/glancectl", "glanced/catalog", false},
		{"glanced/cmd/glancectl", "glanced/catalog/fields", true},
		{"glanced/cmd/glancectl", "glanced/catalog/records", false},
		{"glanced/catalog/fields", "glanced/catalog/rules", false},
		{"glanced/ctl", "glanced/cmd/glancectl/internal/glanceapi", false},
		{"glanced/ctl", "glanced/ctl/keystone", false},
	} {
		rule, ok := ruleFor(c.from)
		if !ok {
			t.Fatalf("%s is in no room", c.from)
		}
		if _, allowed := rule.allows(c.from, c.to); allowed != c.allowed {
			t.Errorf("%s importing %s: want allowed=%v", c.from, c.to, c.allowed)
		}
	}
	for _, c := range []struct{ from, to string }{
		{"glanced/formats/vhd", "net"}, {"glanced/formats/qcow2", "glanced/formats/engine"},
		{"glanced/nbd", "glanced/catalog/records"}, {"glanced/catalog", "net/http"},
	} {
		rule, _ := ruleFor(c.from)
		if _, forbidden := rule.forbids(c.to); !forbidden {
			t.Errorf("%s may reach %s", c.from, c.to)
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

// allows says which entry of may lets pkg import imp.
func (l layer) allows(pkg, imp string) (by string, ok bool) {
	for _, m := range l.may {
		if matches("glanced/"+m, imp) {
			return m, true
		}
	}
	return "", strings.HasPrefix(imp, pkg+"/internal/")
}

// forbids says which entry of never pkg breaks by reaching dep.
func (l layer) forbids(dep string) (by string, ok bool) {
	for _, n := range l.never {
		if matches(n, dep) {
			return n, true
		}
	}
	return "", false
}

func matches(pattern, pkg string) bool {
	below, all := strings.CutSuffix(pattern, "/...")
	return pkg == below || all && strings.HasPrefix(pkg, below+"/")
}

// wayTo is a chain of imports from one package to another, within this module up
// to the last.
func wayTo(pkgs []listed, from, to string) []string {
	imports := map[string][]string{}
	for _, p := range pkgs {
		imports[p.ImportPath] = p.Imports
	}
	came := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, imp := range imports[queue[0]] {
			if _, seen := came[imp]; !seen {
				came[imp] = queue[0]
				queue = append(queue, imp)
			}
		}
	}
	var way []string
	for at := to; at != ""; at = came[at] {
		way = append([]string{at}, way...)
	}
	return way
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string // by any chain of imports
}

// modulePackages asks the go command, so that build tags and files count as they are built.
func modulePackages(t *testing.T) []listed {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "glanced/...")
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
