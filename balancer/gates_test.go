package balancer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// guarded makes endpoints of equal weight with gates of r.
func (r *gateRig) guarded(k int) []*Endpoint {
	eps := endpoints(make([]uint64, k)...)
	for _, e := range eps {
		e.Weight = 1
		e.Guard(r.endpoint(e.ID()))
	}
	return eps
}

type forced struct{ n atomic.Int64 }

func (f *forced) Inc() { f.n.Add(1) }

// breaks opens g.
func (r *gateRig) breaks(t *testing.T, g *Gate, rl *Rules) {
	t.Helper()
	for range rl.Failures {
		g.Record(rl, Outcome{Status: 500}, false)
	}
	if g.View().State != Open {
		t.Fatal("not open")
	}
}

// TestPickersKeepAway: no kind of picker picks a broken endpoint while another is left, and all of them when none is; one in quarantine
// is never picked.
func TestPickersKeepAway(t *testing.T) {
	for _, kind := range kinds {
		r := newGateRig()
		rl := rules(func(r *Rules) { r.Ramp = 10 * time.Second })
		eps := r.guarded(3)
		p := picker(t, kind, eps, nil)
		r.breaks(t, eps[1].Gate(), rl)
		if got := tally(p, eps, 3000); got[1] != 0 || got[0] == 0 || got[2] == 0 {
			t.Errorf("%s: one is open: %v", kind, got)
		}
		q, _ := r.Impose(Target{Scope: OfEndpoint, Name: eps[0].ID()}, time.Minute, "test")
		if got := tally(p, eps, 3000); got[0] != 0 || got[1] != 0 {
			t.Errorf("%s: one is open and one in quarantine: %v", kind, got)
		}
		r.breaks(t, eps[2].Gate(), rl)
		if got := tally(p, eps, 3000); got[0] != 0 || got[1] == 0 || got[2] == 0 {
			t.Errorf("%s: all that may be used are open: %v", kind, got)
		}
		if got := exhaust(t, p, 7); slices.Contains(got, 0) || len(got) != 2 {
			t.Errorf("%s: an exchange tries %v", kind, got)
		}
		r.Lift(q.ID)
		if got := tally(p, eps, 3000); got[0] != 3000 {
			t.Errorf("%s: one is back: %v", kind, got)
		}
		// Half-open: it is offered while nobody probes it.
		r.pass(2 * time.Second)
		if a := eps[1].Gate().Enter(); a != Probing {
			t.Errorf("%s: %v", kind, a)
		}
		if got := tally(p, eps, 3000); got[1] != 0 {
			t.Errorf("%s: a probe is under way: %v", kind, got)
		}
		eps[1].Gate().Record(rl, Outcome{Status: 200}, true)
		eps[1].Gate().Record(rl, Outcome{Status: 200}, true)
		eps[1].Gate().Leave()
		var shares []int
		for range 3 {
			r.pass(5 * time.Second)
			shares = append(shares, tally(p, eps, 3000)[1])
			eps[1].Gate().Enter() // as whoever sends does
		}
		if !(0 < shares[0] && shares[0] < shares[1]) && kind != EWMA && kind != LeastConn {
			t.Errorf("%s: its share grows like this: %v", kind, shares)
		}
		if !eps[1].Gate().Whole() {
			t.Errorf("%s: still recovering", kind)
		}
	}
}

func TestSingleInQuarantine(t *testing.T) {
	for _, kind := range kinds {
		r := newGateRig()
		eps := r.guarded(1)
		p := picker(t, kind, eps, nil)
		r.breaks(t, eps[0].Gate(), rules(nil))
		if i := p.Pick(nil, 1); i != 0 {
			t.Errorf("%s: the only one is broken: %d", kind, i)
		}
		r.Impose(Target{Scope: OfEndpoint, Name: eps[0].ID()}, time.Minute, "test")
		if i := p.Pick(nil, 1); i != -1 {
			t.Errorf("%s: the only one is in quarantine: %d", kind, i)
		}
		r.pass(time.Minute)
		if i := p.Pick(nil, 1); i != 0 {
			t.Errorf("%s: the quarantine has ended: %d", kind, i)
		}
	}
}

// split makes a split of branches with those weights.
func (r *gateRig) split(weights ...uint64) (*Sequence, []*Gate) {
	gates := make([]*Gate, len(weights))
	for i := range gates {
		gates[i] = r.branch(fmt.Sprint("v", i))
	}
	return NewSequence(NewTable(weights), nil, nil), gates
}

// branches returns how n picks are spread.
func branches(s *Sequence, gates []*Gate, n int) []int {
	got := make([]int, len(gates))
	for range n {
		_, i, a := PickBranch(s, gates)
		if a == Refused {
			continue
		}
		got[i]++
	}
	return got
}

// TestPickBranch: the others share what a broken branch leaves by their weights, however heavy it is; nothing is lost.
func TestPickBranch(t *testing.T) {
	for _, tt := range []struct {
		weights []uint64
		broken  []int
		want    []float64 // shares
	}{
		{[]uint64{50, 50}, nil, []float64{0.5, 0.5}},
		{[]uint64{50, 50}, []int{0}, []float64{0, 1}},
		{[]uint64{60, 30, 10}, []int{0}, []float64{0, 0.75, 0.25}},
		{[]uint64{60, 30, 10}, []int{1, 2}, []float64{1, 0, 0}},
		{[]uint64{9900, 60, 40}, []int{0}, []float64{0, 0.6, 0.4}},
		{[]uint64{1_000_003, 999_983, 3}, []int{0, 1}, []float64{0, 0, 1}},
		{[]uint64{50, 50, 0}, []int{0, 1}, []float64{0.5, 0.5, 0}}, // a weight of 0 is no way out
		{[]uint64{1}, []int{0}, []float64{1}},
	} {
		r := newGateRig()
		s, gates := r.split(tt.weights...)
		for _, i := range tt.broken {
			r.breaks(t, gates[i], rules(nil))
		}
		const n = 10_000
		got := branches(s, gates, n)
		for i, c := range got {
			if math.Abs(float64(c)/n-tt.want[i]) > 0.005 {
				t.Errorf("weights %v without %v: %v", tt.weights, tt.broken, got)
				break
			}
		}
	}
	r := newGateRig()
	s, gates := r.split(0, 0)
	if _, i, a := PickBranch(s, gates); i != -1 || a != Admitted || PeekBranch(s, gates) != -1 {
		t.Errorf("no weights: %d, %v", i, a)
	}
}

// TestBranchReturns: a branch that has recovered gets its share back step by step.
func TestBranchReturns(t *testing.T) {
	r := newGateRig()
	var all forced
	r.CountForced(OfBranch, &all)
	rl := rules(func(r *Rules) { r.Ramp = 10 * time.Second })
	s, gates := r.split(50, 50)
	r.breaks(t, gates[1], rl)
	if got := branches(s, gates, 1000); got[1] != 0 || all.n.Load() != 0 {
		t.Fatalf("open: %v", got)
	}
	r.pass(2 * time.Second)
	probes := 0
	for range 100 { // the probes are not given back
		if _, i, a := PickBranch(s, gates); i == 1 && a == Probing {
			probes++
		} else if i == 1 {
			t.Fatal("not as a probe")
		}
	}
	if probes != 1 {
		t.Errorf("%d probes at a time", probes)
	}
	gates[1].Record(rl, Outcome{Status: 200}, true)
	gates[1].Record(rl, Outcome{Status: 200}, true)
	gates[1].Leave()
	last := -1
	for range 5 {
		got := branches(s, gates, 10_000)[1]
		if got <= last {
			t.Errorf("%d picks after %d", got, last)
		}
		last = got
		r.pass(2 * time.Second)
	}
	if got := branches(s, gates, 10_000); got[0] != 5000 || !gates[1].Whole() {
		t.Errorf("at the end: %v", got)
	}
	r.breaks(t, gates[0], rl)
	r.breaks(t, gates[1], rl)
	if got := branches(s, gates, 1000); got[0]+got[1] != 1000 || got[0] != 500 || all.n.Load() != 1000 {
		t.Errorf("all are open: %v, %d of them counted", got, all.n.Load())
	}
}

func TestBranchInQuarantine(t *testing.T) {
	r := newGateRig()
	s, gates := r.split(50, 30, 20)
	impose := func(i int) *Quarantine {
		q, err := r.Impose(gates[i].Target, time.Minute, "test")
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	first := impose(0)
	if got := branches(s, gates, 10_000); got[0] != 0 || got[1] != 6000 || PeekBranch(s, gates) == 0 {
		t.Errorf("one is in quarantine: %v", got)
	}
	r.breaks(t, gates[1], rules(nil))
	r.breaks(t, gates[2], rules(nil))
	if got := branches(s, gates, 10_000); got[0] != 0 || got[1]+got[2] != 10_000 || got[1] == 0 || got[2] == 0 {
		t.Errorf("and the others are open: %v", got)
	}
	impose(1)
	impose(2)
	if _, i, a := PickBranch(s, gates); a != Refused || i < 0 || PeekBranch(s, gates) != -1 {
		t.Errorf("all are in quarantine: %d, %v", i, a)
	}
	r.Lift(first.ID)
	if got := branches(s, gates, 100); got[0] != 100 {
		t.Errorf("one is back: %v", got)
	}
}

// TestPickKeyed: a key goes to the next branch that is left, and comes back to its own.
func TestPickKeyed(t *testing.T) {
	const branches = 4
	next := func(key uint64, passed *Tried) int { // key, key+1, ...
		for i := range uint64(branches) {
			if b := int((key + i) % branches); !passed.Has(b) {
				return b
			}
		}
		return -1
	}
	r := newGateRig()
	var all forced
	r.CountForced(OfBranch, &all)
	_, gates := r.split(1, 1, 1, 1)
	rl := rules(func(r *Rules) { r.Ramp = 10 * time.Second })
	var room Tried
	expect := func(what string, key uint64, want int, admission Admission) {
		t.Helper()
		defer func() {
			if room.Len() != 0 {
				t.Errorf("%s: the room is not empty", what)
			}
		}()
		foreseen := PeekKeyed(gates, key, next)
		if got, a := PickKeyed(gates, key, &room, next); got != want || a != admission || foreseen != got && (a != Refused || foreseen != -1) {
			t.Errorf("%s: key %d went to %d, %v, where %d was foreseen", what, key, got, a, foreseen)
		}
	}
	expect("all is well", 5, 1, Admitted)
	r.breaks(t, gates[1], rl)
	r.breaks(t, gates[2], rl)
	expect("its own is open, and the next", 5, 3, Admitted)
	expect("another key", 4, 0, Admitted)
	r.Impose(gates[3].Target, time.Hour, "test")
	expect("another one in quarantine", 5, 0, Admitted)
	r.breaks(t, gates[0], rl)
	expect("all are open", 5, 1, Admitted)
	expect("all are open, and the own in quarantine", 3, 0, Admitted)
	if all.n.Load() != 2 {
		t.Errorf("%d were counted", all.n.Load())
	}
	for _, g := range gates[:3] {
		r.Impose(g.Target, time.Hour, "test")
	}
	expect("all are in quarantine", 5, 1, Refused)
	if got, a := PickKeyed(nil, 1, &room, func(uint64, *Tried) int { return -1 }); got != -1 || a != Admitted {
		t.Errorf("no branch at all: %d, %v", got, a)
	}
	for _, q := range r.Quarantines() {
		r.Lift(q.ID)
	}
	r.pass(2 * time.Second)
	expect("tried out", 5, 1, Probing)
	gates[1].Record(rl, Outcome{Status: 200}, true)
	gates[1].Record(rl, Outcome{Status: 200}, true)
	gates[1].Leave()
	back := make([]bool, 400)
	returned := 0
	for range 10 {
		for i := range back {
			key := uint64(i)*branches + 1
			at, _ := PickKeyed(gates, key, &room, next)
			if back[i] && at != 1 {
				t.Fatalf("key %d left again", key)
			}
			if at == 1 && !back[i] {
				back[i] = true
				returned++
			}
		}
		r.pass(time.Second)
	}
	if returned < len(back)*3/4 {
		t.Errorf("%d of %d keys are back", returned, len(back))
	}
}

// TestQuarantines: they are kept by identity, whoever uses the target when.
func TestQuarantines(t *testing.T) {
	r := newGateRig()
	at := func(owner, name string) *Gate { return r.Acquire(Target{OfBranch, owner, name}) }
	a, other := at("routes/1", "v1"), at("routes/1", "v2")
	all, _ := r.Impose(Target{OfBranch, "", "v1"}, time.Minute, "everywhere")
	b := at("routes/2", "v1") // later
	if a.Quarantined() != time.Minute || b.Quarantined() != time.Minute || other.Quarantined() != 0 || !other.Whole() {
		t.Error("not where the branch is used")
	}
	one, _ := r.Impose(a.Target, time.Hour, "longer")
	if a.Quarantined() != time.Hour || b.Quarantined() != time.Minute {
		t.Error("the longer one does not win")
	}
	if r.Lift(one.ID) != one || r.Lift(one.ID) != nil || a.Quarantined() != time.Minute {
		t.Error("not lifted")
	}
	a.Release()
	if !r.Sought(a.Target) || at("routes/1", "v1").Quarantined() != time.Minute {
		t.Error("forgotten with the route")
	}
	again, _ := r.Impose(all.Target, 2*time.Minute, "longer")
	if got := r.Quarantines(); len(got) != 1 || got[0] != again {
		t.Errorf("%v", got)
	}
	r.pass(2*time.Minute - 1)
	if b.Admit(0) != Refused || b.Standing() != "quarantined" || b.View().Share != 0 {
		t.Error("ended too early")
	}
	r.pass(1)
	if b.Admit(0) != Admitted || !b.Whole() || r.Sought(Target{OfBranch, "routes/9", "v1"}) {
		t.Error("not ended")
	}
	if got := r.Expired(); len(got) != 1 || got[0] != again || len(r.Expired()) != 0 {
		t.Errorf("expired: %v", got)
	}
	for i := range MaxQuarantines {
		r.Impose(Target{OfEndpoint, "", fmt.Sprint(i)}, time.Hour, "")
	}
	if _, err := r.Impose(Target{OfEndpoint, "", "x"}, time.Hour, ""); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := r.Impose(Target{OfEndpoint, "", "7"}, time.Minute, ""); err != nil {
		t.Errorf("in the place of another: %v", err)
	}
}

// TestGatesAreKept: a gate lives as long as somebody uses the target.
func TestGatesAreKept(t *testing.T) {
	r := newGateRig()
	target := Target{OfEndpoint, "", "10.0.0.1:80"}
	g := r.Acquire(target)
	if r.Acquire(target) != g || !r.Has(target) || r.Has(Target{OfBranch, "", "10.0.0.1:80"}) {
		t.Error("not shared")
	}
	r.breaks(t, g, rules(nil))
	g.Release()
	if v := r.Views(); len(v) != 1 || v[0].State != Open || !v[0].Judged || v[0].Until != time.Unix(0, r.now.Load()).Add(2*time.Second) {
		t.Errorf("%+v", v)
	}
	g.Release()
	if r.Has(target) || len(r.Views()) != 0 || r.Acquire(target) == g {
		t.Error("not forgotten")
	}
}

func TestPickingBranchesAllocates(t *testing.T) {
	r := newGateRig()
	s, gates := r.split(50, 50)
	var room Tried
	next := func(key uint64, passed *Tried) int {
		if passed.Has(0) {
			return 1
		}
		return 0
	}
	for _, broken := range []bool{false, true} {
		if broken {
			r.breaks(t, gates[0], rules(nil))
		}
		if n := testing.AllocsPerRun(100, func() {
			PickBranch(s, gates)
			PickKeyed(gates, 7, &room, next)
		}); n != 0 {
			t.Errorf("broken %t: %v allocations", broken, n)
		}
	}
}

func BenchmarkPickBranch(b *testing.B) {
	for _, broken := range []int{0, 1} {
		b.Run(fmt.Sprint(broken, " of 2 open"), func(b *testing.B) {
			r := newGateRig()
			s, gates := r.split(50, 50)
			for i := range broken {
				for range 3 {
					gates[i].Record(rules(nil), Outcome{Status: 500}, false)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				PickBranch(s, gates)
			}
		})
	}
}
