package budget

import (
	"context"
	"sync"
)

// Accounts are Shares of one Budget by name, of a project, say: what is taken under a
// name counts together, however many take it. Safe for concurrent use.
type Accounts struct {
	b *Budget

	mu   sync.Mutex
	open map[string]*account
}

type account struct {
	share *Share
	users int // holds, and those that wait for one
}

// Accounts opens the accounts of b.
func (b *Budget) Accounts() *Accounts { return &Accounts{b: b, open: map[string]*account{}} }

// Hold is bytes taken under a name. For one goroutine.
type Hold struct {
	a       *Accounts
	name    string
	account *account
	n       int64
}

// Take waits for between least and most bytes under name, or for ctx; see Share.Take.
func (a *Accounts) Take(ctx context.Context, name string, least, most int64) (*Hold, error) {
	h := &Hold{a: a, name: name, account: a.enter(name)}
	n, err := h.account.share.Take(ctx, least, most)
	if err != nil {
		a.leave(name, h.account)
		return nil, err
	}
	h.n = n
	return h, nil
}

func (a *Accounts) enter(name string) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.open[name]
	if acc == nil {
		acc = &account{share: a.b.Share()}
		a.open[name] = acc
	}
	acc.users++
	return acc
}

func (a *Accounts) leave(name string, acc *account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if acc.users--; acc.users == 0 {
		delete(a.open, name)
	}
}

// Bytes is how much is held.
func (h *Hold) Bytes() int64 { return h.n }

// Keep gives back what is held beyond n bytes.
func (h *Hold) Keep(n int64) {
	if n < h.n {
		h.account.share.Give(h.n - n)
		h.n = n
	}
}

// Release gives all back; the Hold is not used again.
func (h *Hold) Release() {
	h.account.share.Give(h.n)
	h.n = 0
	h.a.leave(h.name, h.account)
}
