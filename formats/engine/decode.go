package engine

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"

	"glanced/formats/codec"
)

// decode reads the coded bytes of j's clusters and decodes them, on as many
// decoders as are free; a single cluster needs no other goroutine. What it waits
// for first may be held by reads that hang, so that it leaves then when ctx ends,
// also where f itself cannot be stopped: whoever waits for it tries on its own.
func (j *job) decode(ctx context.Context, f *fetch) error {
	e := j.s.e
	left := context.Canceled
	if f.cancel != nil {
		ctx, left = f.ctx, nil
	}
	room := bufferSize(j.n)
	for i := range j.led {
		if x := &j.led[i]; !x.direct {
			room += bufferSize(x.Full)
		}
	}
	room, err := j.s.working.Take(ctx, room, room)
	if err != nil {
		j.fail(cmp.Or(left, err))
		return err
	}
	defer j.s.working.Give(room)

	coded := e.buffers.get(j.n)
	defer coded.release()
	if err := j.s.ReadAt(f.ctx, coded.bytes, j.pos); err != nil {
		// Whoever joined one of several clusters tries on its own: the fault may lie
		// in the bytes of another. So does who joined since f was stopped, whatever
		// the source makes of that.
		told := err
		if len(j.led) > 1 || f.ctx.Err() != nil {
			told = context.Canceled
		}
		j.fail(told)
		return err
	}
	d, err := e.decoder(f.ctx) // whoever has one is decoding, and soon done
	if err != nil {
		j.fail(err)
		return err
	}
	if len(j.led) == 1 {
		j.led[0].decode(d, coded.bytes)
		e.decoders <- d
		return j.led[0].err
	}
	j.spread(d, coded.bytes)
	for i := range j.led {
		if err := j.led[i].err; err != nil {
			return err
		}
	}
	return nil
}

// spread decodes several clusters from coded, here with d, which it gives back,
// and elsewhere with the decoders that nobody else has.
func (j *job) spread(d *codec.Decoder, coded []byte) {
	var next atomic.Int64
	some := func(d *codec.Decoder) {
		for i := int(next.Add(1)) - 1; i < len(j.led); i = int(next.Add(1)) - 1 {
			x := &j.led[i]
			x.decode(d, coded[x.Pos-j.pos:])
		}
		j.s.e.decoders <- d
	}
	var wg sync.WaitGroup
	for range len(j.led) - 1 {
		select {
		case other := <-j.s.e.decoders:
			wg.Go(func() { some(other) })
			continue
		default:
		}
		break
	}
	some(d)
	wg.Wait()
}

// fail ends all flights of the job.
func (j *job) fail(err error) {
	for i := range j.led {
		x := &j.led[i]
		x.err = err
		x.s.e.clusters.finish(x.key(), x.flight, nil, nil, err)
	}
}

// decode decodes the cluster, whose coded bytes coded begins with, hands it to
// whoever else wants it, and copies the piece to where it goes.
func (x *ledCluster) decode(d *codec.Decoder, coded []byte) {
	e := x.s.e
	coded = coded[:x.N]
	if x.part && x.decodePart(d, coded) {
		return
	}
	if x.direct {
		x.err = decode(d, &x.Extent, x.dst, coded)
		e.clusters.finish(x.key(), x.flight, nil, x.dst, x.err)
		return
	}
	b := e.buffers.get(x.Full)
	x.err = decode(d, &x.Extent, b.bytes, coded)
	e.clusters.finish(x.key(), x.flight, b, nil, x.err)
	if x.err == nil {
		copy(x.dst, b.bytes[x.Skip:])
	}
	b.release()
}

// decodePart is decode for the first bytes of the cluster alone: as many as this
// request and those that have joined it want. How the cluster goes on is not
// checked. false: nothing was done, all of it has to be decoded.
func (x *ledCluster) decodePart(d *codec.Decoder, coded []byte) bool {
	e := x.s.e
	upto := e.clusters.seal(x.key(), x.flight)
	if upto == x.Full {
		return false
	}
	if x.Skip == 0 && x.Len == upto {
		if d.DeflatePrefix(x.dst, coded) != nil {
			return false
		}
		e.clusters.finish(x.key(), x.flight, nil, x.dst, nil)
		return true
	}
	b := e.buffers.get(upto)
	defer b.release()
	if d.DeflatePrefix(b.bytes, coded) != nil {
		return false
	}
	e.clusters.finish(x.key(), x.flight, b, nil, nil)
	copy(x.dst, b.bytes[x.Skip:])
	return true
}
