package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"glanced/contrib/testbed"
)

// A small budget, and how far beyond it the whole process may go whatever its clients
// do, the Go runtime's own and the program's pages included.
const (
	scarce = 64 << 20
	slack  = 32 << 20
)

// startScarce starts a daemon with a budget of scarce bytes, and with its mount if
// mounted. Arguments before the program's name run it, such as those of prlimit(1).
func startScarce(t *testing.T, mounted bool, runner ...string) *process {
	t.Helper()
	return scarceIn(t, t.TempDir(), mounted, runner...)
}

// scarceIn is startScarce with a data folder that may have something in it.
func scarceIn(t *testing.T, dir string, mounted bool, runner ...string) *process {
	t.Helper()
	mnt := ""
	if mounted {
		mnt = filepath.Join(dir, "mnt")
	}
	config := filepath.Join(dir, "glanced.toml")
	text := fmt.Sprintf("data_dir = %q\n[memory]\nbudget = \"%dMiB\"\n[fuse]\nmountpoint = %q\n"+
		"[[auth.tokens]]\nfile = \"admin.token\"\nproject = \"other\"\nroles = [\"admin\"]\n", dir, scarce>>20, mnt)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startBy(t, runner, dir, "--config", config)
}

// wantWithin checks the most that the daemon ever held.
func (p *process) wantWithin(most int64) {
	p.t.Helper()
	got := p.memory("VmHWM")
	p.t.Logf("at most %d KiB", got>>10)
	if got > most {
		p.t.Errorf("the daemon held %d KiB; %d are allowed", got>>10, most>>10)
	}
}

// upload makes an image of a file's bytes.
func (p *process) upload(name, format string, body io.Reader) (id string) {
	p.t.Helper()
	status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(
		fmt.Sprintf(`{"name":%q,"disk_format":%q,"container_format":"bare","visibility":"public"}`, name, format)))
	if status != http.StatusCreated {
		p.t.Fatalf("create: %d %v", status, img)
	}
	id = img["id"].(string)
	if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", body); status != http.StatusNoContent {
		p.t.Fatalf("upload: %d %v", status, v)
	}
	return id
}

// emptyVMDK is a sparse extent of 64 TiB: its grain directory takes 16 MiB, and
// nothing is in it. The layout is "Virtual Disk Format 5.0", hosted sparse extent.
func emptyVMDK() []byte {
	const (
		directoryBytes = 16 << 20
		grain, entries = 64, 512 // sectors; of a grain table
		sectors        = directoryBytes / 4 * entries * grain
		directoryAt    = 21 // sector, after header and descriptor
	)
	descriptor := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW %d SPARSE \"disk.vmdk\"\n", sectors)
	head, _ := binary.Append(nil, binary.LittleEndian, struct {
		Magic                            [4]byte
		Version, Flags                   uint32
		Capacity, Grain                  uint64
		DescriptorAt, DescriptorSize     uint64
		Entries                          uint32
		RedundantAt, DirectoryAt, Before uint64
		Unclean                          byte
		Newlines                         [4]byte
		Compression                      uint16
	}{[4]byte{'K', 'D', 'M', 'V'}, 1, 1, sectors, grain, 1, 20, entries, 0, directoryAt, directoryAt + directoryBytes/512, 0, [4]byte{'\n', ' ', '\r', '\n'}, 0})
	image := make([]byte, directoryAt*512+directoryBytes)
	copy(image, head)
	copy(image[512:], descriptor)
	return image
}

func TestLargeTablesStayWithinTheBudget(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	testbed.Need(t, "qemu-io", "qemu-utils")
	p := startScarce(t, false)
	image := emptyVMDK()
	var reading sync.WaitGroup
	for i := range 20 {
		id := p.upload(fmt.Sprintf("empty %d", i), "vmdk", bytes.NewReader(image))
		reading.Go(func() {
			uri := "nbd+unix:///" + id + "?socket=" + filepath.Join(p.dir, "nbd.sock")
			// Here and there, so that each reads much of the directory, and holds it open.
			args := []string{"-r", "-f", "raw", uri}
			for at := range 64 {
				args = append(args, "-c", fmt.Sprintf("read %dT 4k", at))
			}
			if out, err := exec.Command("qemu-io", args...).CombinedOutput(); err != nil {
				t.Errorf("qemu-io: %v\n%s", err, out)
			}
			if out, err := exec.Command("nbdinfo", "--map", uri).CombinedOutput(); err != nil {
				t.Errorf("nbdinfo: %v\n%s", err, out)
			}
		})
	}
	reading.Wait()
	p.wantWithin(scarce + slack)
}

// unfinishedOption is the client's flags and an option (NBD_OPT_INFO) of which the last
// byte is missing, as the NBD protocol has them.
func unfinishedOption() []byte {
	const data = 64 << 10
	b := binary.BigEndian.AppendUint32(nil, 3)
	b = append(b, "IHAVEOPT"...)
	b = binary.BigEndian.AppendUint32(b, 6)
	b = binary.BigEndian.AppendUint32(b, data)
	return append(b, make([]byte, data-1)...)
}

func TestUnfinishedOptionsStayWithinTheBudget(t *testing.T) {
	p := startScarce(t, false)
	option := unfinishedOption()
	for range 2000 {
		c, err := net.Dial("unix", filepath.Join(p.dir, "nbd.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // what is not taken in is refused already
		c.Write(option)
	}
	time.Sleep(time.Second)
	p.wantWithin(scarce + slack)
}

// compressedDisk is a disk of 16 MiB, and a compressed qcow2 of it.
func compressedDisk(t *testing.T, dir string) (plain []byte, image *os.File) {
	t.Helper()
	raw, qcow2 := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	plain = make([]byte, 16<<20)
	rand.New(rand.NewSource(1)).Read(plain)
	for i := range plain {
		plain[i] &= 15
	}
	if err := os.WriteFile(raw, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2)
	image, err := os.Open(qcow2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	return plain, image
}

func TestDirectReadersOfTheMountStayWithinTheBudget(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	p := startScarce(t, true)
	plain, data := compressedDisk(t, p.dir)
	disk := filepath.Join(p.dir, "mnt/images", p.upload("disk", "qcow2", data), "disk")
	var readers sync.WaitGroup
	for reader := range 128 {
		readers.Go(func() {
			const n = 1 << 20
			f, err := os.OpenFile(disk, os.O_RDONLY|unix.O_DIRECT, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			space := make([]byte, n+4096)
			buf := space[4096-uintptr(unsafe.Pointer(&space[0]))%4096:][:n]
			for i := range 8 {
				off := int64(reader+i) % 16 * n
				if _, err := f.ReadAt(buf, off); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(buf, plain[off:][:n]) {
					t.Errorf("other bytes at %d", off)
				}
			}
		})
	}
	readers.Wait()
	p.wantWithin(scarce + slack)
}

// half asks for a transfer on the control socket, which is not finished as long as the
// test runs.
func (p *process) half(request string) net.Conn {
	p.t.Helper()
	c, err := net.Dial("unix", filepath.Join(p.dir, "control.sock"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, request+"\r\nHost: control\r\n"); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// Clients that stop in the middle of an upload, or of taking a download that is made as
// it is sent, keep little of the memory.
func TestStalledTransfersStayWithinTheBudget(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	const transfers = 120
	p := startScarce(t, false)
	_, image := compressedDisk(t, p.dir)
	id := p.upload("disk", "qcow2", image)
	for range transfers {
		c := p.half("GET /v2/images/" + id + "/file?disk_format=raw HTTP/1.1")
		io.WriteString(c, "\r\n")
		head := make([]byte, 15)
		if _, err := io.ReadFull(c, head); err != nil || string(head) != "HTTP/1.1 200 OK" {
			t.Fatalf("%q, %v", head, err)
		}
	}
	p.stalledUploads(transfers)
	p.wantWithin(scarce + slack)
}

// stalledUploads begins n uploads, each of an image of its own, and sends as much of them
// as is taken. Those that have no place yet take next to nothing.
func (p *process) stalledUploads(n int) {
	p.t.Helper()
	body := bytes.Repeat([]byte("data"), 1<<20)
	var sending sync.WaitGroup
	for range n {
		status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"raw","container_format":"bare"}`))
		if status != http.StatusCreated {
			p.t.Fatalf("create: %d %v", status, img)
		}
		c := p.half("PUT /v2/images/" + img["id"].(string) + "/file HTTP/1.1")
		io.WriteString(c, "Content-Type: application/octet-stream\r\nContent-Length: 10000000\r\n\r\n")
		sending.Go(func() {
			c.SetWriteDeadline(time.Now().Add(2 * time.Second))
			c.Write(body)
		})
	}
	sending.Wait()
}

// A project's stalled uploads take a bounded part of the memory, and leave room for those
// of others.
func TestStalledUploadsLeaveRoomForOtherProjects(t *testing.T) {
	p := startScarce(t, false)
	token := filepath.Join(p.dir, "admin.token")
	p.stalledUploads(300)
	p.wantWithin(scarce + slack)
	// The token's project is not that of root on the control socket.
	secret, err := os.ReadFile(token)
	if err != nil {
		t.Fatal(err)
	}
	id := p.create("of another project", "public", nil)
	req, err := http.NewRequest("PUT", "http://"+p.http+"/v2/images/"+id+"/file", strings.NewReader("data"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("X-Auth-Token", strings.TrimSpace(string(secret)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent {
		t.Errorf("beside stalled uploads, another project's is answered %s: %s", resp.Status, text)
	}
}

// silent opens connections that say nothing, for as long as the test.
func silent(t *testing.T, network, addr string, n int) {
	t.Helper()
	for range n {
		c, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
}

// Clients of one door take the files of no other.
func TestSilentClientsLeaveFilesForTheOtherDoors(t *testing.T) {
	testbed.Need(t, "prlimit", "util-linux")
	p := startScarce(t, true, "prlimit", "--nofile=256:256")
	id := p.create("disk", "public", bytes.Repeat([]byte("d"), 4096))
	disk := filepath.Join(p.dir, "mnt/images", id, "disk")
	others := func() {
		t.Helper()
		if status, v := p.call("GET", "/v2/images/"+id, "", nil); status != http.StatusOK {
			t.Errorf("over the control socket: %d %v", status, v)
		}
		if b, err := os.ReadFile(disk); err != nil || len(b) != 4096 {
			t.Errorf("through the mount: %d bytes, %v", len(b), err)
		}
	}

	silent(t, "unix", filepath.Join(p.dir, "nbd.sock"), 233)
	resp, err := http.Get("http://" + p.http + "/")
	if err != nil {
		t.Fatalf("beside silent NBD clients HTTP cannot be reached: %v", err)
	}
	resp.Body.Close()
	others()
	silent(t, "tcp", p.http, 100)
	others()
	waitForText(t, string(p.log), "too many NBD connections")
	waitForText(t, string(p.log), "too many connections")

	want := divided(scarce, 256, false).mountFiles
	var open []*os.File
	for deadline := time.Now().Add(10 * time.Second); ; {
		f, err := os.Open(disk)
		if err == nil {
			defer f.Close()
			open = append(open, f)
			continue
		}
		if !errors.Is(err, syscall.ENFILE) {
			t.Fatalf("open number %d: %v", len(open), err)
		}
		if len(open) >= want || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond) // the kernel tells of files closed a moment later
	}
	if len(open) != want {
		t.Errorf("%d files could be opened at once, want %d", len(open), want)
	}
}
