package keystone

import (
	"fmt"
	"testing"
	"time"

	"glanced/backends/budget"
	"glanced/ctl"
)

// noon is when these tests begin.
var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func asked(n int) question { return question{sum: [32]byte{byte(n), byte(n >> 8), byte(n >> 16)}} }

// good is an answer about a token of a project that is good for an hour.
func good(project string) answer {
	t := token{who: ctl.Identity{User: "user", Project: project, Roles: []string{"member", "reader"}}, expires: noon.Add(time.Hour)}
	return answer{token: t, fresh: noon.Add(time.Minute), until: t.expires}
}

func TestTheCacheIsBoundedAndWhoBringsManyDisplacesTheirOwn(t *testing.T) {
	b := budget.New(1 << 20)
	c := NewCache(b)
	for i := range 10 {
		c.put(asked(i), "project quiet", good("quiet"), noon)
	}
	bad := answer{refused: true, fresh: noon.Add(time.Second), until: noon.Add(time.Second)}
	for i := range 20_000 {
		c.put(asked(100+2*i), nobody, bad, noon)
		c.put(asked(101+2*i), "project busy", good("busy"), noon)
	}
	for i := range 10 {
		if known, ok := c.get(asked(i)); !ok || known.token.who.Project != "quiet" {
			t.Errorf("token %d of the quiet project was displaced", i)
		}
	}
	held := int64(0)
	for _, e := range c.entries {
		held += e.bytes
	}
	if held != b.Size()-b.Free() || len(c.entries) != c.used.Len() || len(c.owners) != 3 {
		t.Errorf("%d bytes held, %d taken; %d entries, %d in the list, of %d", held, b.Size()-b.Free(), len(c.entries), c.used.Len(), len(c.owners))
	}
	if held < b.Size()/4 || held > b.Size()*3/4 {
		t.Errorf("two who bring many hold %d of %d bytes", held, b.Size())
	}
	if _, ok := c.get(asked(100 + 2*20_000 - 1)); !ok {
		t.Error("the last one is not kept")
	}

	// Many projects fill it, and there is always room for one more.
	for i := range 20_000 {
		project := fmt.Sprint("project ", i)
		c.put(asked(1_000_000+i), project, good(project), noon)
		if _, ok := c.get(asked(1_000_000 + i)); !ok {
			t.Fatalf("token %d is not kept", i)
		}
	}
	if len(c.owners) > len(c.entries) || int64(len(c.entries))*entryBytes > b.Size() {
		t.Errorf("%d entries of %d owners", len(c.entries), len(c.owners))
	}
}

func TestWhatNoLongerHoldsGoesFirst(t *testing.T) {
	b := budget.New(64 << 10)
	c := NewCache(b)
	for i := range 1000 {
		c.put(asked(i), "project a", good("a"), noon)
	}
	before := len(c.entries)
	later := noon.Add(2 * time.Hour)
	fresh := good("b")
	fresh.until = later.Add(time.Hour)
	for i := range 1000 {
		c.put(asked(10_000+i), "project b", fresh, later)
	}
	if kept := len(c.entries); kept > before+1 {
		t.Errorf("%d entries, of one project %d", kept, before)
	}
	if left := c.owners["project a"]; left != nil {
		t.Errorf("%d expired entries are left", left.used.Len())
	}
}

func TestOneAsksAgainForAll(t *testing.T) {
	c := NewCache(budget.New(1 << 20))
	c.put(asked(1), "project a", good("a"), noon)
	late := noon.Add(time.Minute)
	if c.claim(asked(1), late.Add(-1), late) || c.claim(asked(2), late, late) {
		t.Error("what is fresh, or unknown, was claimed")
	}
	if !c.claim(asked(1), late, late.Add(askedFor)) || c.claim(asked(1), late, late.Add(askedFor)) {
		t.Error("it was not claimed once")
	}
	if known, ok := c.get(asked(1)); !ok || !known.until.Equal(noon.Add(time.Hour)) || !known.fresh.Equal(late.Add(askedFor)) {
		t.Errorf("%+v", known)
	}
}

func TestWhatIsTooLargeIsNotKept(t *testing.T) {
	c := NewCache(budget.New(32 << 10))
	c.put(asked(1), "project a", good("a"), noon)
	large := good("a")
	for range 1000 {
		large.token.who.Roles = append(large.token.who.Roles, "another role")
	}
	c.put(asked(1), "project a", large, noon)
	if _, ok := c.get(asked(1)); ok || c.b.Free() != c.b.Size() {
		t.Errorf("kept: %v; %d bytes are taken", ok, c.b.Size()-c.b.Free())
	}
}
