package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/vhdx"
)

// Where the fields of the headers and tables lie that tests change.
const (
	header1, header2           = 64 * kib, 128 * kib
	regionTable1, regionTable2 = 192 * kib, 256 * kib
	metadataEntries            = metadataAt + 32
	itemOffset, itemLength     = 16, 20
	itemFlags                  = 24
)

// put32 and put64 make edits of both copies at a distance of 64 KiB, or of one
// place where copies is 1.
func put32(at, copies int, v uint32) func([]byte) {
	return func(f []byte) {
		for i := range copies {
			binary.LittleEndian.PutUint32(f[at+i*64*kib:], v)
		}
	}
}

func put64(at, copies int, v uint64) func([]byte) {
	return func(f []byte) {
		for i := range copies {
			binary.LittleEndian.PutUint64(f[at+i*64*kib:], v)
		}
	}
}

func TestRefusesHostileImages(t *testing.T) {
	guest := guestOf(3*mib + 512)
	b := builder{}.of(guest) // blocks 0, 2 and 3, the last at 4 MiB
	image := b.image()
	end := len(image) / mib
	entry := func(i int64, state uint64, at int) func([]byte) {
		return func(f []byte) { b.setBlock(f, i, state, at) }
	}
	unknown := guidBytes("deadbeef-0000-1111-2222-333344445555")
	region := func(at, n int64, required uint32) func([]byte) {
		return func(f []byte) {
			for _, r := range []int{regionTable1, regionTable2} {
				binary.LittleEndian.PutUint32(f[r+8:], 3)
				putRegion(f[r+16+64:], "deadbeef-0000-1111-2222-333344445555", at, n, required)
			}
		}
	}
	for name, c := range map[string]struct {
		edit func(f []byte)
		want error
	}{
		"no identifier":                  {func(f []byte) { f[7] = 'd' }, formats.ErrFormat},
		"no header":                      {func(f []byte) { f[header1]++; f[header2]++ }, formats.ErrCorrupt},
		"twice the same sequence number": {func(f []byte) { put64(header2+8, 1, 7)(f); f[header2+16]++ }, formats.ErrCorrupt},
		"version 0":                      {func(f []byte) { f[header1+66] = 0; f[header2+66] = 0 }, formats.ErrUnsupported},
		"version 2":                      {func(f []byte) { f[header1+66] = 2 }, formats.ErrUnsupported},
		"log of another version":         {func(f []byte) { f[header1+64] = 1; dirty(f) }, formats.ErrUnsupported},
		"log in the headers":             {put64(header1+72, 2, 0), formats.ErrCorrupt},
		"log not in whole MiB":           {put64(header1+72, 2, mib+4096), formats.ErrCorrupt},
		"log of half a MiB":              {put32(header1+68, 2, mib/2), formats.ErrCorrupt},
		"log past the end":               {put64(header1+72, 2, uint64(end)*mib), formats.ErrCorrupt},
		"log far away":                   {put64(header1+72, 2, 1<<63), formats.ErrCorrupt},
		"log far away, largest":          {put64(header1+72, 2, 1<<64-mib), formats.ErrCorrupt},
		"log longer than the file":       {put32(header1+68, 2, 0xfff00000), formats.ErrCorrupt},
		"no log to play back":            {func(f []byte) { put32(header1+68, 2, 0)(f); dirty(f) }, formats.ErrCorrupt},
		"log over a region":              {put64(header1+72, 2, batAt), formats.ErrCorrupt},
		"no region table":                {func(f []byte) { f[regionTable1]++; f[regionTable2]++ }, formats.ErrCorrupt},
		"too many regions":               {put32(regionTable1+8, 2, 2048), formats.ErrCorrupt},
		"most regions":                   {put32(regionTable1+8, 2, 1<<32-1), formats.ErrCorrupt},
		"no regions":                     {put32(regionTable1+8, 2, 0), formats.ErrCorrupt},
		"no metadata region":             {put32(regionTable1+8, 2, 1), formats.ErrCorrupt},
		"region twice":                   {func(f []byte) { copy(f[regionTable1+48:][:16], f[regionTable1+16:]) }, formats.ErrCorrupt},
		"region in the headers":          {put64(regionTable1+32, 2, 0), formats.ErrCorrupt},
		"region over a region":           {put64(regionTable1+32, 2, metadataAt), formats.ErrCorrupt},
		"region over the log":            {put64(regionTable1+32, 2, logAt), formats.ErrCorrupt},
		"region past the end":            {put64(regionTable1+32, 2, uint64(end)*mib), formats.ErrCorrupt},
		"region far away":                {put64(regionTable1+32, 2, 1<<64-mib), formats.ErrCorrupt},
		"region longer than the file":    {put32(regionTable1+40, 2, 0xfff00000), formats.ErrCorrupt},
		"region of no length":            {put32(regionTable1+40, 2, 0), formats.ErrCorrupt},
		"region not in whole MiB":        {put64(regionTable1+32, 2, batAt+4096), formats.ErrCorrupt},
		"region with reserved flags":     {put32(regionTable1+44, 2, 3), formats.ErrCorrupt},
		"unknown region, required":       {region(5*mib, mib, 1), formats.ErrUnsupported},
		"unknown region over a block":    {region(5*mib, mib, 0), formats.ErrCorrupt},
		"no metadata table":              {func(f []byte) { f[metadataAt]++ }, formats.ErrCorrupt},
		"too many items":                 {func(f []byte) { binary.LittleEndian.PutUint16(f[metadataAt+10:], 2048) }, formats.ErrCorrupt},
		"no items":                       {func(f []byte) { clear(f[metadataAt+10 : metadataAt+12]) }, formats.ErrCorrupt},
		"no disk id":                     {func(f []byte) { f[metadataAt+10] = 4 }, formats.ErrCorrupt},
		"item twice":                     {func(f []byte) { copy(f[metadataEntries+32:][:16], f[metadataEntries:]) }, formats.ErrCorrupt},
		"item in the table":              {put32(metadataEntries+itemOffset, 1, 4096), formats.ErrCorrupt},
		"item past its region":           {put32(metadataEntries+itemOffset, 1, mib-4), formats.ErrCorrupt},
		"item far away":                  {put32(metadataEntries+itemOffset, 1, 1<<32-8), formats.ErrCorrupt},
		"item over an item":              {put32(metadataEntries+itemOffset, 1, itemsAt-metadataAt+4), formats.ErrCorrupt},
		"item too short":                 {put32(metadataEntries+32+itemLength, 1, 7), formats.ErrCorrupt},
		"item of no length":              {put32(metadataEntries+itemLength, 1, 0), formats.ErrCorrupt},
		"item of 4 GiB":                  {put32(metadataEntries+itemLength, 1, 1<<32-1), formats.ErrCorrupt},
		"item with reserved flags":       {put32(metadataEntries+itemFlags, 1, 12), formats.ErrCorrupt},
		"unknown item, required":         {func(f []byte) { copy(f[metadataEntries:], unknown) }, formats.ErrUnsupported},
		"user's item, required":          {put32(metadataEntries+itemFlags, 1, 5), formats.ErrUnsupported},
		"blocks of no length":            {put32(blockSizeAt, 1, 0), formats.ErrCorrupt},
		"blocks of half a MiB":           {put32(blockSizeAt, 1, mib/2), formats.ErrCorrupt},
		"blocks of 3 MiB":                {put32(blockSizeAt, 1, 3*mib), formats.ErrCorrupt},
		"blocks of 512 MiB":              {put32(blockSizeAt, 1, 512*mib), formats.ErrCorrupt},
		"reserved file parameters":       {put32(fileFlagsAt, 1, 4), formats.ErrCorrupt},
		"parent without a locator":       {put32(fileFlagsAt, 1, 2), formats.ErrCorrupt},
		"sectors of no length":           {put32(sectorSizeAt, 1, 0), formats.ErrCorrupt},
		"sectors of 1 KiB":               {put32(sectorSizeAt, 1, 1024), formats.ErrCorrupt},
		"physical sectors of 1 KiB":      {put32(sectorSizeAt+4, 1, 1024), formats.ErrCorrupt},
		"disk of half a sector":          {put64(diskSizeAt, 1, 256), formats.ErrCorrupt},
		"disk of more than 64 TiB":       {put64(diskSizeAt, 1, 64<<40+512), formats.ErrCorrupt},
		"disk, largest":                  {put64(diskSizeAt, 1, 1<<64-512), formats.ErrCorrupt},
		"disk of more than the BAT":      {put64(diskSizeAt, 1, 131072*mib), formats.ErrCorrupt},
		"block in the headers":           {entry(0, fully, 0), formats.ErrCorrupt},
		"block over the log":             {entry(0, fully, logAt/mib), formats.ErrCorrupt},
		"block over the metadata":        {entry(0, fully, metadataAt/mib), formats.ErrCorrupt},
		"block over the BAT":             {entry(0, fully, batAt/mib), formats.ErrCorrupt},
		"block past the end":             {entry(2, fully, end), formats.ErrCorrupt},
		"block far away":                 {entry(2, fully, 1<<43), formats.ErrCorrupt},
		"block at the highest place":     {entry(3, fully, 1<<44-1), formats.ErrCorrupt},
		"block with reserved bits":       {func(f []byte) { f[batAt+1] |= 1 }, formats.ErrCorrupt},
		"hole with reserved bits":        {func(f []byte) { f[batAt+8] |= 1 << 3 }, formats.ErrCorrupt},
		"block in reserved state 4":      {entry(1, 4, 5), formats.ErrCorrupt},
		"block in reserved state 5":      {entry(1, 5, 5), formats.ErrCorrupt},
		"partial block, no parent":       {entry(0, partially, 5), formats.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			f := bytes.Clone(image)
			c.edit(f)
			if !strings.HasPrefix(name, "no header") {
				seal(f)
			}
			if name == "no region table" {
				f[regionTable1+4]++
			}
			formattest.Refuse(t, vhdx.Driver(), f, c.want)
		})
	}
	for name, n := range map[string]int{"identifier": 8, "headers": header2 + 100, "region tables": regionTable1 + 100, "metadata": metadataAt + 100, "a block": len(image) - mib/2 - 512} {
		t.Run("cut off in "+name, func(t *testing.T) {
			formattest.Refuse(t, vhdx.Driver(), image[:n], formats.ErrCorrupt)
		})
	}
}

func TestSurvivesWhatItNeedNotRefuse(t *testing.T) {
	guest := guestOf(3*mib + 512)
	b := builder{}.of(guest)
	unknown := guidBytes("deadbeef-0000-1111-2222-333344445555")
	for name, edit := range map[string]func(f []byte) []byte{
		"one bad header":           func(f []byte) []byte { f[header1+100]++; return f },
		"the other bad header":     func(f []byte) []byte { f[header2+100]++; return f },
		"one bad region table":     func(f []byte) []byte { f[regionTable1+100]++; return f },
		"identical headers":        func(f []byte) []byte { copy(f[header2:][:4*kib], f[header1:]); return f },
		"no log at all":            func(f []byte) []byte { put32(header1+68, 2, 0)(f); put64(header1+72, 2, 0)(f); return seal(f) },
		"an old log":               func(f []byte) []byte { f[header1+64] = 1; return seal(f) },
		"an unknown region":        func(f []byte) []byte { return append(f, make([]byte, mib)...) },
		"an unknown item":          func(f []byte) []byte { copy(f[metadataEntries+5*32:], unknown); f[metadataAt+10]++; return f },
		"a bitmap without a sense": func(f []byte) []byte { putEntry(f, 4096, 3, 77); return f },
	} {
		t.Run(name, func(t *testing.T) {
			f := edit(b.image())
			if name == "an unknown region" {
				for _, r := range []int{regionTable1, regionTable2} {
					binary.LittleEndian.PutUint32(f[r+8:], 3)
					putRegion(f[r+16+64:], "deadbeef-0000-1111-2222-333344445555", int64(len(f)-mib), mib, 0)
				}
				seal(f)
			}
			sameBytes(t, readAll(t, f, nil), guest)
		})
	}
}

func TestRefusesHostileDifferencingDisks(t *testing.T) {
	small := func() *builder {
		b := &builder{size: 3 * mib, locator: locatorTo(parentIdentity), blocks: map[int64]block{1: {partially, make([]byte, mib)}}}
		b.mark(2048, 7)
		return b
	}
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		edit func(f []byte)
		want error
	}{
		"no sector bitmap":                 {func(f []byte) { putEntry(f, 4096, 0, 0) }, formats.ErrCorrupt},
		"sector bitmap in a wrong state":   {func(f []byte) { putEntry(f, 4096, 7, 5) }, formats.ErrCorrupt},
		"sector bitmap past the end":       {func(f []byte) { putEntry(f, 4096, 6, 6) }, formats.ErrCorrupt},
		"sector bitmap over the BAT":       {func(f []byte) { putEntry(f, 4096, 6, batAt/mib) }, formats.ErrCorrupt},
		"sector bitmap with reserved bits": {func(f []byte) { f[batAt+8*4096+1] = 1 }, formats.ErrCorrupt},
		"block past the end":               {func(f []byte) { putEntry(f, 1, partially, 6) }, formats.ErrCorrupt},
		"locator of another type":          {func(f []byte) { f[locatorAt]++ }, formats.ErrUnsupported},
		"more entries than there are":      {func(f []byte) { le.PutUint16(f[locatorAt+18:], 65535) }, formats.ErrCorrupt},
		"no entries":                       {func(f []byte) { le.PutUint16(f[locatorAt+18:], 0) }, formats.ErrCorrupt},
		"no path":                          {func(f []byte) { le.PutUint16(f[locatorAt+18:], 1) }, formats.ErrCorrupt},
		"key at 0":                         {put32(locatorAt+20, 1, 0), formats.ErrCorrupt},
		"key past the item":                {put32(locatorAt+20, 1, 1<<32-1), formats.ErrCorrupt},
		"value past the item":              {put32(locatorAt+24, 1, 1<<32-2), formats.ErrCorrupt},
		"value of half a character":        {func(f []byte) { f[locatorAt+30]-- }, formats.ErrCorrupt},
		"value of no length":               {func(f []byte) { f[locatorAt+30] = 0 }, formats.ErrCorrupt},
		"key twice":                        {func(f []byte) { copy(f[locatorAt+32:], f[locatorAt+20:locatorAt+32]) }, formats.ErrCorrupt},
		"identity of another shape":        {func(f []byte) { f[le.Uint32(f[locatorAt+24:])+locatorAt+2] = 'x' }, formats.ErrCorrupt},
		"NUL in the identity":              {func(f []byte) { f[le.Uint32(f[locatorAt+24:])+locatorAt+2] = 0 }, formats.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			f := small().image()
			c.edit(f)
			l, err := vhdx.Driver().Open(t.Context(), formattest.Memory(f), formats.Options{})
			if err == nil {
				err = l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool { return true })
				l.Close()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	t.Run("second identity of another shape", func(t *testing.T) {
		b := small()
		b.locator = append(b.locator, [2]string{"parent_linkage2", "none"})
		formattest.Refuse(t, vhdx.Driver(), b.image(), formats.ErrCorrupt)
	})
	t.Run("path of 60 KiB", func(t *testing.T) {
		b := small()
		b.locator[1][1] = strings.Repeat("long", 7500)
		formattest.Refuse(t, vhdx.Driver(), b.image(), formats.ErrLimit)
	})
	t.Run("unmatched halves of characters", func(t *testing.T) {
		f := small().image()
		value := f[locatorAt+int(le.Uint32(f[locatorAt+36:])):]
		le.PutUint16(value, 0xd800)
		info, err := vhdx.Driver().Inspect(t.Context(), formattest.Memory(f))
		if err != nil || len(info.Refs) != 1 || info.Refs[0].Name != "\ufffd\\parent.vhdx" {
			t.Errorf("Inspect says %+v, %v", info, err)
		}
	})
}

// A file of 2 TiB with blocks of 1 MiB has a BAT of 16 MiB.
func TestOpensALargeDiskInLittleMemory(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	testbed.Run(t, "qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M,block_state_zero=off", path, "2T")
	if st, err := os.Stat(path); err != nil || st.Size() < 16*mib {
		t.Fatalf("%v, %v", st, err)
	}
	src := formattest.OpenFile(t, path)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l, err := vhdx.Driver().Open(t.Context(), src, formats.Options{})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := after.TotalAlloc - before.TotalAlloc; got > mib {
		t.Errorf("Open takes %d bytes", got)
	}
	n := 0
	if err := l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool { n++; return true }); err != nil || n != 1 {
		t.Errorf("the map has %d extents, %v", n, err)
	}
}
