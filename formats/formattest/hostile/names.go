package hostile

import (
	"fmt"
	"slices"
)

// Baits are names of every kind that some reader of disk images opens.
var Baits = []string{
	"/etc/passwd", "../../../../etc/shadow", "/dev/sda", "/dev/zero", "/proc/self/environ",
	"file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "nbd://127.0.0.1:10809/x", "nbd:unix:/run/nbd.sock:exportname=x",
	`json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}`,
	`\\server\share\disk.vhd`, `\\.\PhysicalDrive0`, "fat:rw:/tmp", "host_device:/dev/sda", "disk.img",
}

// References are images that name another file, name, in every place where a
// format has room for one.
func References(name string) []Image {
	var all []Image
	for _, place := range slices.Concat(qcow2Places, vmdkPlaces, vhdPlaces, vhdxPlaces, qedPlaces, ovaPlaces) {
		m := &maker{format: place.format, container: place.container}
		m.add(Names, fmt.Sprintf("%s %q", place.what, name), place.want, Open, place.image(name))
		all = append(all, m.images...)
	}
	return all
}

// rotated is an image of every place and of every bait, and not of every pair of them.
func rotated() []Image {
	var all []Image
	for i, bait := range Baits {
		for j, img := range References(bait) {
			if (i+j)%4 == 0 {
				all = append(all, img)
			}
		}
	}
	return all
}

// place is where an image can name another file.
type place struct {
	format, container, what string
	want                    error
	image                   func(name string) []byte
}
