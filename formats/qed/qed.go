// Package qed recognises QEMU Enhanced Disk images, to refuse them by name: the
// format was given up in favour of qcow2 v3, and OpenStack bans it.
//
// Source: QEMU, docs/interop/qed_spec.rst.
package qed

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the qed format. Inspect says what an image is; Open refuses every one
// with ErrUnsupported.
func Driver() formats.Driver {
	return formats.Driver{Name: "qed", Probe: probe, Inspect: inspect, Open: open}
}

const (
	magic       = "QED\x00"
	headerBytes = 64 // the header's fields
	hasBacking  = 1  // feature: the fields for the backing file's name are valid
	backingRaw  = 4  // feature: the backing file is raw, and not to be probed
	maxName     = 1023
)

func probe(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

func inspect(ctx context.Context, src stored.Bytes) (formats.Info, error) {
	head, err := formats.ReadHead(ctx, src)
	if err != nil {
		return formats.Info{}, err
	}
	if !probe(head) {
		return formats.Info{}, fmt.Errorf("%w: no qed magic at the beginning", formats.ErrFormat)
	}
	info := formats.Info{
		Format:  "qed",
		Refused: fmt.Errorf("%w: qed images are not read; convert it (qemu-img convert -f qed -O qcow2)", formats.ErrUnsupported),
	}
	if len(head) < headerBytes {
		return info, nil
	}
	le := binary.LittleEndian
	info.ClusterSize = int64(le.Uint32(head[4:]))
	info.VirtualSize = int64(min(le.Uint64(head[48:]), math.MaxInt64))
	if ref, ok := backing(head); ok {
		info.Refs = []formats.Ref{ref}
	}
	return info, nil
}

// backing is the name of the backing file, where the header has one that lies
// within head, as writers place it.
func backing(head []byte) (formats.Ref, bool) {
	le := binary.LittleEndian
	features := le.Uint64(head[16:])
	at, n := int64(le.Uint32(head[56:])), int64(le.Uint32(head[60:]))
	if features&hasBacking == 0 || n == 0 || n > maxName || at > int64(len(head))-n {
		return formats.Ref{}, false
	}
	ref := formats.Ref{Kind: formats.RefBacking, Name: strings.ToValidUTF8(string(head[at:at+n]), "\uFFFD")}
	if features&backingRaw != 0 {
		ref.Format = "raw"
	}
	return ref, true
}

func open(ctx context.Context, src stored.Bytes, _ formats.Options) (formats.Layout, error) {
	info, err := inspect(ctx, src)
	if err != nil {
		return nil, err
	}
	return nil, info.Refused
}
