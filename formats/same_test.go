package formats

import (
	"math/rand/v2"
	"testing"
)

func TestSameCountsEqualEntries(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		size := 4 << r.IntN(2)
		table := make([]byte, r.IntN(40)*size+size)
		for at := 0; at < len(table); {
			v, n := byte(r.IntN(3)), 1+r.IntN(12)
			for ; n > 0 && at < len(table); n-- {
				table[at+r.IntN(size)] = v // the others stay 0
				at += size
			}
		}
		i := r.IntN(len(table) / size)
		want, most := 1, 1+r.IntN(50)
		for want < most && (i+want+1)*size <= len(table) && string(table[(i+want)*size:][:size]) == string(table[i*size:][:size]) {
			want++
		}
		if got := Same(table, size, i, int64(most)); got != int64(want) {
			t.Fatalf("entries of %d bytes from %d on, at most %d, in %x: %d, want %d", size, i, most, table, got, want)
		}
	}
}
