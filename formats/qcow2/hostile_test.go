package qcow2_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

// hostileEdits lists what malicious or damaged images do, each as a change of a valid
// one, with the kind of error that must come of it.
var hostileEdits = []struct {
	name string
	edit func(*image)
	want error
}{
	{"version 1", func(i *image) { i.version = 1 }, formats.ErrUnsupported},
	{"version 4", func(i *image) { i.version = 4 }, formats.ErrUnsupported},
	{"clusters of 256 bytes", func(i *image) { i.clusterBits = 8 }, formats.ErrCorrupt},
	{"clusters of 4 MiB", func(i *image) { i.clusterBits = 22 }, formats.ErrCorrupt},
	{"cluster bits that overflow", func(i *image) { i.clusterBits = 63 }, formats.ErrCorrupt},
	{"cluster bits beyond 32 bits", func(i *image) { i.clusterBits = math.MaxUint32 }, formats.ErrCorrupt},
	{"a negative size", func(i *image) { i.size = 1 << 63 }, formats.ErrCorrupt},
	{"the largest size", func(i *image) { i.size = math.MaxInt64 }, formats.ErrCorrupt},
	{"AES", func(i *image) { i.crypt = 1 }, formats.ErrEncrypted},
	{"LUKS", func(i *image) { i.crypt = 2 }, formats.ErrEncrypted},
	{"an unknown cipher", func(i *image) { i.crypt = 3 }, formats.ErrUnsupported},

	{"the corrupt bit", func(i *image) { i.features = 1 << 1 }, formats.ErrCorrupt},
	{"an unknown feature", func(i *image) { i.features = 1 << 5 }, formats.ErrUnsupported},
	{"the last unknown feature", func(i *image) { i.features = 1 << 63 }, formats.ErrUnsupported},
	{"a compression type without its bit", func(i *image) { i.compression = 1 }, formats.ErrCorrupt},
	{"the compression bit without a type", func(i *image) { i.features = 1 << 3 }, formats.ErrCorrupt},
	{"an unknown compression type", func(i *image) { i.features, i.compression = 1<<3, 2 }, formats.ErrUnsupported},
	{"extended L2 with small clusters", func(i *image) { i.features = 1 << 4 }, formats.ErrCorrupt},
	{"refcounts of 128 bits", func(i *image) { i.refcountBits = 7 }, formats.ErrCorrupt},

	{"a short header length", func(i *image) { i.headerLength = 96 }, formats.ErrCorrupt},
	{"an odd header length", func(i *image) { i.headerLength = 109 }, formats.ErrCorrupt},
	{"a header longer than a cluster", func(i *image) { i.headerLength = cluster + 8 }, formats.ErrCorrupt},
	{"the largest header length", func(i *image) { i.headerLength = math.MaxUint32 &^ 7 }, formats.ErrCorrupt},
	{"an extension longer than the cluster", func(i *image) {
		i.extensions = binary.BigEndian.AppendUint32(nil, 0x12345678)
		i.extensions = binary.BigEndian.AppendUint32(i.extensions, cluster)
	}, formats.ErrCorrupt},
	{"the longest extension", func(i *image) {
		i.extensions = binary.BigEndian.AppendUint32(nil, 0x6803f857)
		i.extensions = binary.BigEndian.AppendUint32(i.extensions, math.MaxUint32)
	}, formats.ErrCorrupt},
	{"a long backing format", func(i *image) { i.extend(0xe2792aca, make([]byte, 16)) }, formats.ErrCorrupt},
	{"a long data file name", func(i *image) { i.extend(0x44415441, make([]byte, 1024)) }, formats.ErrCorrupt},

	{"a backing file", func(i *image) { i.name("/etc/passwd") }, formats.ErrReference},
	{"a backing file of json", func(i *image) { i.name(`json:{"file.filename":"/etc/passwd"}`) }, formats.ErrReference},
	{"a data file", func(i *image) { i.features = 1 << 2; i.extend(0x44415441, []byte("/etc/passwd")) }, formats.ErrReference},
	{"a data file without a name", func(i *image) { i.features = 1 << 2 }, formats.ErrReference},
	{"a backing file without a name", func(i *image) { i.backingOff = 2048 }, formats.ErrCorrupt},
	{"a long backing name", func(i *image) { i.backingOff, i.backingLen = 2048, 1024 }, formats.ErrCorrupt},
	{"a backing name of 4 GiB", func(i *image) { i.backingOff, i.backingLen = 2048, math.MaxUint32 }, formats.ErrCorrupt},
	{"a backing name outside the first cluster", func(i *image) { i.backingOff, i.backingLen = cluster-4, 8 }, formats.ErrCorrupt},
	{"a backing name inside the header", func(i *image) { i.backingOff, i.backingLen = 8, 8 }, formats.ErrCorrupt},
	{"a backing name at the end of the numbers", func(i *image) { i.backingOff, i.backingLen = math.MaxUint64, 8 }, formats.ErrCorrupt},

	{"an L1 table that is too short", func(i *image) { i.l1Size = 1 }, formats.ErrCorrupt},
	{"an L1 table of 32 GiB", func(i *image) { i.l1Size = math.MaxUint32 }, formats.ErrLimit},
	{"an L1 table just over the limit", func(i *image) { i.l1Size = 4<<20 + 1 }, formats.ErrLimit},
	{"an L1 table longer than the file", func(i *image) { i.l1Size = 4 << 20 }, formats.ErrCorrupt},
	{"an L1 table past the end", func(i *image) { i.l1Off = 1 << 40 }, formats.ErrCorrupt},
	{"an L1 table at the end of the numbers", func(i *image) { i.l1Off = math.MaxUint64 &^ (cluster - 1) }, formats.ErrCorrupt},
	{"an unaligned L1 table", func(i *image) { i.l1Off = l1At + 512 }, formats.ErrCorrupt},
	{"an L1 table over the header", func(i *image) { i.l1Off = 0 }, formats.ErrCorrupt},

	{"an L1 entry with reserved bits", func(i *image) { i.set(l1At, l2At|copied|1) }, formats.ErrCorrupt},
	{"an L1 entry with high reserved bits", func(i *image) { i.set(l1At, l2At|1<<62) }, formats.ErrCorrupt},
	{"an unaligned L2 table", func(i *image) { i.set(l1At, l2At+512) }, formats.ErrCorrupt},
	{"an L2 table past the end", func(i *image) { i.set(l1At, 1<<40) }, formats.ErrCorrupt},
	{"an L2 table cut off by the end", func(i *image) { i.set(l1At, 6*cluster); i.b = append(i.b, make([]byte, 100)...) }, formats.ErrCorrupt},
	{"an L2 table used again and again", aliasedTables, formats.ErrCorrupt},
	{"an L2 table used twice", func(i *image) { i.set(l1At+8, l2At) }, formats.ErrCorrupt},

	{"an L2 entry with reserved bits", func(i *image) { i.set(l2At, dataAt|copied|2) }, formats.ErrCorrupt},
	{"an L2 entry with high reserved bits", func(i *image) { i.set(l2At, dataAt|1<<56) }, formats.ErrCorrupt},
	{"an unaligned cluster", func(i *image) { i.set(l2At, dataAt+512) }, formats.ErrCorrupt},
	{"an unaligned zero cluster", func(i *image) { i.set(l2At, dataAt+512|1) }, formats.ErrCorrupt},
	{"a cluster past the end", func(i *image) { i.set(l2At, 1<<40) }, formats.ErrCorrupt},
	{"a cluster that begins at the end", func(i *image) { i.set(l2At, 6*cluster) }, formats.ErrCorrupt},
	{"the farthest cluster", func(i *image) { i.set(l2At, 1<<56-cluster) }, formats.ErrCorrupt},
	{"a zero cluster in version 2", func(i *image) { i.version = 2 }, formats.ErrCorrupt},

	{"compressed bytes past the end", func(i *image) { i.set(l2At+5*8, 6*cluster|compressed) }, formats.ErrCorrupt},
	{"compressed bytes at the end of the numbers", func(i *image) { i.set(l2At+5*8, math.MaxUint64) }, formats.ErrCorrupt},
	{"compressed bytes that are noise", func(i *image) {
		for j := range 400 {
			i.b[packAt+100+j] = byte(j*j>>3) | 6 // block type 3 does not exist
		}
	}, formats.ErrCorrupt},
	{"compressed bytes that are too short", func(i *image) {
		i.set(packAt+100, 0)
		copy(i.b[packAt+100:], []byte{0x01, 2, 0, 0xfd, 0xff, 'h', 'i'}) // one stored block of two bytes
	}, formats.ErrCorrupt},

	{"65537 snapshots", func(i *image) {
		i.snapshots, i.snapshotsOff = 65537, uint64(len(i.b))
		i.b = append(i.b, make([]byte, 65537*40)...)
	}, formats.ErrLimit},
	{"snapshots past the end", func(i *image) { i.snapshots, i.snapshotsOff = 1, 1<<40 }, formats.ErrCorrupt},
	{"snapshots at the end of the numbers", func(i *image) { i.snapshots, i.snapshotsOff = 1, math.MaxUint64 }, formats.ErrCorrupt},
	{"an unaligned snapshot table", func(i *image) { i.snapshots, i.snapshotsOff = 1, dataAt+8 }, formats.ErrCorrupt},
	{"snapshots with much extra data", func(i *image) {
		i.snapshotTable("one")
		binary.BigEndian.PutUint32(i.b[i.snapshotsOff+36:], math.MaxUint32)
	}, formats.ErrLimit},
	{"more snapshots than the table holds", func(i *image) { i.snapshotTable("one"); i.snapshots = 1000 }, formats.ErrCorrupt},
	{"a snapshot of negative size", func(i *image) {
		i.snapshotTable("one")
		i.set(int(i.snapshotsOff)+48, 1<<63)
	}, formats.ErrCorrupt},
	{"a snapshot table of many MiB", func(i *image) {
		i.snapshotTable("one")
		at := int(i.snapshotsOff)
		i.snapshots = 65536
		i.b = append(i.b[:at:at], make([]byte, 8<<20)...)
		for ; at+131200 < len(i.b); at += 40 + 131072 {
			i.set(at+8, 0xffff_fff8) // lengths of the id and the name
		}
	}, formats.ErrLimit},
}

// aliasedTables makes a disk of 512 GiB from one empty L2 table that all entries of
// a large L1 table point to: few bytes to read, and very many entries to look at.
func aliasedTables(i *image) {
	const entries = 256 << 10
	i.l1Off, i.l1Size, i.size = uint64(len(i.b)), entries, entries*(cluster/8)*cluster
	for j := range cluster / 8 {
		i.set(l2At+8*j, 0)
	}
	at := len(i.b)
	i.b = append(i.b, make([]byte, entries*8)...)
	for ; at < len(i.b); at += 8 {
		binary.BigEndian.PutUint64(i.b[at:], l2At)
	}
}

// A walk in parts never sees two uses of a table at once, so that Check must.
func TestASharedL2TableIsRefusedBeforeAnyWalk(t *testing.T) {
	active, snapshot := newImage(t), newImage(t)
	active.set(l1At+8, l2At)
	// Of the snapshot alone: its own L1 table, at the end.
	snapshot.snapshotTable("one")
	own := (len(snapshot.b) + cluster - 1) / cluster * cluster
	snapshot.set(own, l2At)
	snapshot.set(own+8, l2At|copied)
	snapshot.set(int(snapshot.snapshotsOff), uint64(own))
	for name, c := range map[string]struct {
		img      *image
		snapshot string
		want     error
	}{
		"active": {active, "", formats.ErrCorrupt}, "snapshot": {snapshot, "1", formats.ErrCorrupt}, "beside a bad snapshot": {snapshot, "", nil},
	} {
		l, err := qcow2.Driver().Open(t.Context(), formattest.Memory(c.img.bytes()), formats.Options{Snapshot: c.snapshot})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.(formats.Checker).Check(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		l.Close()
	}
}

func TestHostileImagesAreRefused(t *testing.T) {
	for _, h := range hostileEdits {
		t.Run(h.name, func(t *testing.T) {
			img := newImage(t)
			h.edit(img)
			formattest.Refuse(t, qcow2.Driver(), img.bytes(), h.want)
		})
	}
}

// extended is a valid image with extended L2 entries, and where its first entry is.
func extended(t testing.TB) (img *image, entry int) {
	const big = 1 << 14
	img = newImage(t)
	img.clusterBits, img.features = 14, 1<<4
	img.size, img.l1Size, img.l1Off = 1<<20, 1, big
	img.b = make([]byte, 4*big)
	img.set(big, 2*big|copied)
	img.set(2*big, 3*big|copied)
	img.set(2*big+8, 0x0000ff00_000000ff)
	return img, 2 * big
}

func TestSubclustersAreMappedOneByOne(t *testing.T) {
	img, entry := extended(t)
	img.set(entry+16, 0) // absent, in part zero
	img.set(entry+24, 1<<63)
	const sub = 1 << 14 / 32
	got := mustMap(t, img.bytes())
	want := []formats.Extent{
		{Off: 0, Len: 8 * sub, Kind: formats.Data, Pos: 3 << 14, N: 8 * sub},
		{Off: 8 * sub, Len: 8 * sub, Kind: formats.Zero},
		{Off: 16 * sub, Len: 47 * sub, Kind: formats.Absent},
		{Off: 63 * sub, Len: sub, Kind: formats.Zero},
		{Off: 64 * sub, Len: 1<<20 - 64*sub, Kind: formats.Absent},
	}
	if len(got) != len(want) {
		t.Fatalf("got\n%+v, want\n%+v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got\n%+v, want\n%+v", got[i], want[i])
		}
	}
}

func TestHostileSubclustersAreRefused(t *testing.T) {
	for name, set := range map[string][2]uint64{
		"both allocated and zero":     {3<<14 | copied, 0x00000001_00000001},
		"allocated without a cluster": {0, 1},
		"the zero flag":               {3<<14 | 1, 0},
		"an unaligned cluster":        {3<<14 + 4096, 1},
		"a cluster past the end":      {4 << 14, 1},
	} {
		t.Run(name, func(t *testing.T) {
			img, entry := extended(t)
			img.set(entry, set[0])
			img.set(entry+8, set[1])
			formattest.Refuse(t, qcow2.Driver(), img.bytes(), formats.ErrCorrupt)
		})
	}
}
