package encode

import (
	"fmt"
	"math/bits"
	"sort"

	"glanced/formats"
)

const (
	// pageLen is how many numbers a page of a set is for.
	pageLen = 4096
	// maxMixed is how many pages of a set may be neither empty nor full. Such a
	// page takes 512 bytes of bits, and 64 with a full page beside it: 40 MiB in all.
	maxMixed = 1 << 16
)

// set is a set of numbers of clusters, with ranks: which is the k-th, and how many
// come before a number. It takes memory only where it is fragmented. It does not
// change once built, and is safe for concurrent use.
type set struct {
	pages []page // in order; empty pages are left out
	len   int64  // members
}

// page is pageLen numbers from first*pageLen on, or n times as many where all of
// them are members.
type page struct {
	first, n int64
	before   int64 // members in earlier pages
	bits     *pageBits
}

// pageBits has a bit for each number of a page; nil stands for all ones.
type pageBits [pageLen / 64]uint64

func (p *page) start() int64 { return p.first * pageLen }
func (p *page) end() int64   { return (p.first + p.n) * pageLen }

// rank is how many members are below i.
func (s *set) rank(i int64) int64 {
	at := sort.Search(len(s.pages), func(j int) bool { return s.pages[j].end() > i })
	if at == len(s.pages) {
		return s.len
	}
	p := &s.pages[at]
	in := max(i-p.start(), 0)
	if p.bits == nil {
		return p.before + in
	}
	n := bits.OnesCount64(p.bits[in/64] & (1<<(in%64) - 1))
	for _, word := range p.bits[:in/64] {
		n += bits.OnesCount64(word)
	}
	return p.before + int64(n)
}

// run is the member with k members below it, of which there must be one, and how
// many members follow each other from it on, itself included, limit at most.
func (s *set) run(k, limit int64) (first, n int64) {
	at := sort.Search(len(s.pages), func(j int) bool { return s.pages[j].before > k }) - 1
	p := &s.pages[at]
	first = p.start() + p.find(k-p.before)
	for n = p.ones(first); n < limit && first+n == p.end(); n += p.ones(first + n) {
		if at++; at == len(s.pages) || s.pages[at].start() != p.end() {
			break
		}
		p = &s.pages[at]
	}
	return first, min(n, limit)
}

// find is the place within the page of its k-th member, from 0.
func (p *page) find(k int64) int64 {
	if p.bits == nil {
		return k
	}
	i := 0
	for c := int64(0); ; i++ {
		if c = int64(bits.OnesCount64(p.bits[i])); k < c {
			break
		}
		k -= c
	}
	word := p.bits[i]
	for range k {
		word &= word - 1
	}
	return int64(i*64 + bits.TrailingZeros64(word))
}

// ones is how many numbers from i on are members, in a row and in this page.
func (p *page) ones(i int64) int64 {
	if p.bits == nil {
		return p.end() - i
	}
	from := i - p.start()
	for at := from; at < pageLen; {
		n := int64(bits.TrailingZeros64(^(p.bits[at/64] >> (at % 64))))
		if at += n; n == 0 {
			return at - from
		}
	}
	return pageLen - from
}

// setBuilder builds a set from ranges in rising order. The zero value is empty.
type setBuilder struct {
	set   set
	next  int64 // all below it is settled
	mixed int   // pages with bits

	page  int64 // being filled
	bits  pageBits
	count int64 // of bits that are ones
}

// add makes the numbers in [from, to) members; from may overlap what was added
// last, not more. It fails with ErrLimit where the set is too fragmented to keep.
func (b *setBuilder) add(from, to int64) error {
	from = max(from, b.next)
	b.next = max(b.next, to)
	for from < to {
		if from/pageLen != b.page {
			if err := b.flush(); err != nil {
				return err
			}
			b.page = from / pageLen
		}
		if n := (to - from) / pageLen; n > 0 && from%pageLen == 0 {
			b.full(b.page, n)
			from += n * pageLen
			continue
		}
		end := min(to, (b.page+1)*pageLen)
		b.count += end - from
		for from < end {
			in := from % pageLen
			n := min(64-in%64, end-from)
			b.bits[in/64] |= (1<<n - 1) << (in % 64)
			from += n
		}
	}
	return nil
}

// flush moves the page being filled into the set.
func (b *setBuilder) flush() error {
	switch b.count {
	case 0:
		return nil
	case pageLen:
		b.full(b.page, 1)
	default:
		if b.mixed++; b.mixed > maxMixed {
			return fmt.Errorf("%w: the disk's allocated clusters lie too scattered to lay out a qcow2; convert it to raw", formats.ErrLimit)
		}
		kept := b.bits
		b.set.pages = append(b.set.pages, page{first: b.page, n: 1, before: b.set.len, bits: &kept})
		b.set.len += b.count
	}
	b.bits, b.count = pageBits{}, 0
	return nil
}

// full makes all numbers of n pages members.
func (b *setBuilder) full(first, n int64) {
	if last := len(b.set.pages) - 1; last >= 0 && b.set.pages[last].bits == nil && b.set.pages[last].first+b.set.pages[last].n == first {
		b.set.pages[last].n += n
	} else {
		b.set.pages = append(b.set.pages, page{first: first, n: n, before: b.set.len})
	}
	b.set.len += n * pageLen
}

// done is the set; nothing may be added any more.
func (b *setBuilder) done() (set, error) {
	err := b.flush()
	return b.set, err
}
