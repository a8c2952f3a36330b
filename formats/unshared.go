package formats

import (
	"context"
	"fmt"
)

// placesAtOnce is how many places one walk of Unshared marks: 1 MiB of memory.
const placesAtOnce = 8 << 20

// Unshared fails with ErrCorrupt where two of n entries of a table have one place,
// of so many places from 0 on. place says where entry i lies; or, in none, how many
// entries from i on have no place. It is asked for each entry once for every 8 Mi
// places.
func Unshared(ctx context.Context, n, places int64, place func(ctx context.Context, i int64) (at, none int64, err error)) error {
	seen := make([]uint64, (min(places, placesAtOnce)+63)/64)
	for first := int64(0); first < places; first += placesAtOnce {
		clear(seen)
		for i := int64(0); i < n; i++ {
			at, none, err := place(ctx, i)
			if err != nil {
				return err
			}
			if none > 0 {
				i += none - 1
				continue
			}
			if at -= first; at < 0 || at >= min(placesAtOnce, places-first) {
				continue
			}
			if seen[at/64]>>(at%64)&1 != 0 {
				return fmt.Errorf("%w: entry %d leads to where another one does", ErrCorrupt, i)
			}
			seen[at/64] |= 1 << (at % 64)
		}
	}
	return nil
}
