package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/container"
	"glanced/formats/container/spool"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
)

// Every image is refused at the step, and for the reason, that its maker says:
// so it is what its name says, and not just broken in some other way.
func TestEveryImageIsRefusedForItsReason(t *testing.T) {
	for _, img := range hostile.Images() {
		t.Run(img.Name, func(t *testing.T) {
			path, err := img.Write(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			src := formattest.OpenFile(t, path)
			step, err := seen(t.Context(), src, img)
			if errors.Is(err, formats.ErrUnsupported) && strings.Contains(err.Error(), "this build cannot") {
				testbed.Unable(t, err.Error()) // xz without cgo
			}
			if !errors.Is(err, img.Want) || img.Want != nil && step != img.Step {
				t.Errorf("step %d says %v; want step %d, %v", step, err, img.Step, img.Want)
			}
			if st, err := os.Stat(path); err != nil || st.Size() != img.Size {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
}

// seen is the first step that fails, and with what.
func seen(ctx context.Context, src stored.Bytes, img hostile.Image) (hostile.Step, error) {
	inner, beside := src, formats.Files(nil)
	if box, ok := container.Find(all.Containers(), img.Container); ok {
		o, err := box.Open(ctx, src, container.Options{Spool: spool.Temporary(os.TempDir())})
		if err != nil {
			return hostile.Open, err
		}
		defer o.Image.Close()
		inner, beside = o.Image, o.Beside
	}
	driver, _ := formats.Find(all.Drivers(), img.Format)
	found, err := formats.DetectSource(ctx, all.Drivers(), inner)
	if err == nil && found != img.Format {
		err = fmt.Errorf("%w: it is %s", formats.ErrFormat, found)
	}
	if err != nil {
		return hostile.Open, err
	}
	e := engine.New(engine.Options{CacheBytes: 32 << 20, TableBytes: 4 << 20})
	defer e.Close()
	disk, err := e.Open(ctx, driver, inner, engine.OpenOptions{Files: beside})
	if err != nil {
		return hostile.Open, err
	}
	defer disk.Close()
	if err := disk.Check(ctx); err != nil {
		return hostile.Map, err
	}
	var data []formats.Extent
	err = disk.Extents(ctx, 0, disk.Size(), func(x formats.Extent) bool {
		if x.Kind >= formats.Data && len(data) < 1000 {
			data = append(data, x)
		}
		return true
	})
	if err != nil {
		return hostile.Map, err
	}
	for _, x := range data {
		p := make([]byte, min(x.Len, 1<<20))
		if err := disk.ReadAt(ctx, p, x.Off); err != nil {
			return hostile.Read, err
		}
		if !slices.ContainsFunc(p, func(c byte) bool { return c != 0 }) && img.Class != hostile.Amplification && img.Class != hostile.Log {
			return hostile.Read, fmt.Errorf("extent %+v reads as zeros", x)
		}
	}
	return hostile.Read, nil
}

// without says why there is no image of a class in some formats and containers;
// any other cell of the table without one is an omission.
var without = map[hostile.Class]map[string]string{
	hostile.Names:         {"bare iso": noTables, "bare ploop": noNames},
	hostile.Chain:         {"bare iso": noTables, "bare ploop": noNames},
	hostile.Sizes:         {"compressed qcow2": "no header of the codings is trusted with a size"},
	hostile.Clusters:      {"compressed qcow2": inside, "ova vmdk": inside},
	hostile.Aliasing:      {"compressed qcow2": inside, "ova vmdk": inside},
	hostile.Streams:       {"bare vhd": uncompressed, "bare vhdx": uncompressed, "bare vdi": uncompressed, "bare ploop": uncompressed, "bare iso": uncompressed, "bare qed": uncompressed},
	hostile.Amplification: {"bare vhd": uncompressed, "bare vhdx": uncompressed, "bare vdi": uncompressed, "bare ploop": uncompressed, "bare iso": uncompressed, "bare qed": uncompressed},
	hostile.Polyglot:      {"compressed qcow2": inside},
	hostile.Disguise:      {"ova vmdk": "it is there as ova of each other format"},
	hostile.Time:          {"bare iso": noTables, "compressed qcow2": inside, "ova vmdk": inside},
}

const (
	noNames      = "an image names no other: which one lies below is in another file, which is not read"
	noTables     = "its bytes are the disk: no tables, no names"
	uncompressed = "it has no compressed clusters"
	inside       = "the container adds nothing to what is in the bare image"
)

func TestEveryClassIsThereForEveryFormat(t *testing.T) {
	have := map[hostile.Class]map[string]int{}
	kinds := map[string]bool{}
	names := map[string]bool{}
	for _, img := range hostile.Images() {
		kind := img.Container + " " + img.Format
		if img.Container == "bare" || kind == "ova vmdk" || kind == "compressed qcow2" { // in others there are a few of the same
			kinds[kind] = true
		}
		if have[img.Class] == nil {
			have[img.Class] = map[string]int{}
		}
		have[img.Class][kind]++
		if names[img.Name] {
			t.Errorf("two images are called %q", img.Name)
		}
		names[img.Name] = true
	}
	for _, d := range all.Drivers() {
		if d.Probe != nil && !kinds["bare "+d.Name] {
			t.Errorf("no image of the format %s", d.Name)
		}
	}
	for _, class := range hostile.Classes {
		for kind := range kinds {
			_, excused := without[class][kind]
			switch {
			case class == hostile.Log && kind != "bare vhdx", class == hostile.Archive && kind != "ova vmdk":
			case have[class][kind] == 0 && !excused:
				t.Errorf("%s: no image for %s", class, kind)
			}
		}
	}
}
