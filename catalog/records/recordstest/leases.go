package recordstest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// lapsed is how long a lease lasts that has lapsed as soon as it is looked at.
const lapsed = -time.Hour

func testLeases(t *testing.T, s *rules.Records) {
	img := create(t, s, records.Image{})
	a, b := rules.NewLease(records.UploadLease, img.ID, "a"), rules.NewLease(records.UploadLease, img.ID, "b")
	under := func(l records.Lease, step rules.Step, during time.Duration, hidden bool) error {
		_, err := s.UpdateUnder(t.Context(), img.ID, rules.Under{Lease: l, Step: step, During: during}, func(i *records.Image) error { i.Hidden = hidden; return nil })
		return err
	}
	want := func(what string, err, want error, hidden bool) {
		t.Helper()
		if !errors.Is(err, want) || get(t, s, img.ID).Hidden != hidden {
			t.Errorf("%s: %v, want %v; hidden %v", what, err, want, !hidden)
		}
	}
	want("keeping what nobody has", under(a, rules.Keep, time.Hour, true), records.ErrLeaseLost, false)
	want("taking what is free", under(a, rules.Take, time.Hour, true), nil, true)
	want("taking what another has", under(b, rules.Take, time.Hour, false), records.ErrLeased, true)
	want("keeping what another has", under(b, rules.Keep, time.Hour, false), records.ErrLeaseLost, true)
	want("keeping, until it has lapsed", under(a, rules.Keep, lapsed, false), nil, false)
	want("keeping what has lapsed, and nobody took", under(a, rules.Keep, lapsed, true), nil, true)
	want("taking what has lapsed", under(b, rules.Take, time.Hour, false), nil, false)
	want("keeping what was taken over", under(a, rules.Keep, time.Hour, true), records.ErrLeaseLost, false)
	want("dropping what was taken over", under(a, rules.Drop, 0, true), records.ErrLeaseLost, false)
	if err := s.DropLease(t.Context(), a); err != nil {
		t.Error(err)
	}
	want("keeping what another could not drop", under(b, rules.Keep, time.Hour, true), nil, true)
	want("dropping", under(b, rules.Drop, 0, false), nil, false)
	want("taking what was dropped", under(a, rules.Take, time.Hour, true), nil, true)
	// A lease is of one kind, on one thing.
	for _, other := range []records.Lease{rules.NewLease(records.BytesLease, img.ID, "b"), rules.NewLease(records.UploadLease, img.ID+"x", "b")} {
		if err := s.TakeLease(t.Context(), other, time.Hour); err != nil {
			t.Error(err)
		}
	}
	wantErr(t, s.TakeLease(t.Context(), b, time.Hour), records.ErrLeased)
	// A refused update takes no lease.
	img = create(t, s, records.Image{})
	a.ID, b.ID = img.ID, img.ID
	no := errors.New("no")
	_, err := s.UpdateUnder(t.Context(), img.ID, rules.Under{Lease: a, Step: rules.Take, During: time.Hour}, func(*records.Image) error { return no })
	want("a refused update", err, no, false)
	want("after a refused update", under(b, rules.Take, time.Hour, true), nil, true)
}

func testLeasesAreRenewed(t *testing.T, s *rules.Records) {
	var all []records.Lease
	for _, id := range []string{"1", "2", "3"} {
		l := rules.NewLease(records.NodeLease, id, "n"+id)
		all = append(all, l)
		if err := s.SetLease(t.Context(), l, lapsed); err != nil {
			t.Fatal(err)
		}
	}
	taken := rules.NewLease(records.NodeLease, "2", "other")
	if err := s.TakeLease(t.Context(), taken, time.Hour); err != nil {
		t.Fatal(err)
	}
	kept, err := s.Renew(t.Context(), []string{all[0].Holder, all[1].Holder}, time.Hour)
	if err != nil || !slices.Equal(kept, []string{all[0].Holder}) {
		t.Errorf("kept %v, %v; want %v", kept, err, all[0].Holder)
	}
	got, err := s.Leases(t.Context(), records.NodeLease)
	all[1], all[2].Lapsed = taken, true
	if err != nil || !slices.Equal(got, all) {
		t.Errorf("leases %v, %v; want %v", got, err, all)
	}
	// Those that lapsed a while ago go, all[2] an hour ago.
	for _, c := range []struct {
		ago  time.Duration
		want int
	}{{2 * time.Hour, 3}, {time.Minute, 2}} {
		err := s.ClearLeases(t.Context(), c.ago)
		if got, err2 := s.Leases(t.Context(), records.NodeLease); err != nil || err2 != nil || len(got) != c.want {
			t.Errorf("%d leases, %v, %v; want %d", len(got), err, err2, c.want)
		}
	}
	if err := s.Forget(t.Context(), records.NodeLease, "other"); err != nil {
		t.Error(err)
	}
	if got, err := s.Leases(t.Context(), records.NodeLease); err != nil || !slices.Equal(got, all[:1]) {
		t.Errorf("leases %v, %v", got, err)
	}
}

func tryTake(s *rules.Records, j job, i int) error {
	return s.TakeLease(context.Background(), rules.NewLease(records.UploadLease, j.IDs[i], "n"), time.Hour)
}

func testProcessesShareLeases(t *testing.T, s *rules.Records, where string) {
	j := job{Where: where, Task: "take"}
	for range 50 {
		id := rules.NewLease("", "", "").Holder
		j.IDs = append(j.IDs, id)
		// Of a daemon that is dead.
		if err := s.SetLease(t.Context(), rules.NewLease(records.UploadLease, id, "dead"), lapsed); err != nil {
			t.Fatal(err)
		}
	}
	r := race(t, j, func(<-chan struct{}) {})
	for i := range j.IDs {
		if r[0].Done[i] == r[1].Done[i] {
			t.Errorf("lease %d: taken over %v, %v; by one it must be", i, r[0].Done[i], r[1].Done[i])
		}
	}
}
