package phase

import (
	"slices"
	"strings"
	"testing"
)

// mute is a plugin of every phase that must not be run.
type mute struct{ t *testing.T }

func (m mute) Rewrite(*Exchange) Verdict { m.t.Error("rewrite ran"); return Stop }
func (m mute) Access(*Exchange) Verdict  { m.t.Error("access ran"); return Stop }
func (m mute) Send(*Exchange) Verdict    { m.t.Error("send ran"); return Stop }
func (m mute) Response(*Exchange)        { m.t.Error("response ran") }
func (m mute) Done(*Exchange)            { m.t.Error("done ran") }

// divider is a mute that says where exchanges go.
type divider struct {
	mute
	name string
}

func (d divider) Explain(*Exchange) *Choice { return &Choice{Next: d.name} }

// never is a predicate that does not hold.
type never struct{}

func (never) True(*Exchange) bool { return false }

func TestStandingOfAnExchangeWithAConsumer(t *testing.T) {
	m := mute{t}
	const a, b, c, d, e = 0, 1, 2, 3, 4 // kinds
	chainOf := func(class int, off []uint8, list ...Instance) *Chain {
		slots := SlotRange{Class: class}
		for i := range list {
			list[i].Plugin = m
			if list[i].When != nil {
				list[i].Slot = slots.Reserve()
			}
		}
		return NewChainOf(list, off, slots)
	}
	route := chainOf(RouteSlots, nil, Instance{Kind: a}, Instance{Kind: b}, Instance{Kind: c})
	group := chainOf(GroupSlots, nil, Instance{Kind: b}, Instance{Kind: d}, Instance{Kind: e, When: never{}})
	own := chainOf(ConsumerSlots, []uint8{d}, Instance{Kind: c})
	global := chainOf(GlobalSlots, nil, Instance{Kind: a, Prefer: true}, Instance{Kind: d, Prefer: true}, Instance{Kind: e, Prefer: true})

	x := &Exchange{}
	x.Enter(global, route)
	x.Preview(&Principal{Consumer: Consumer{Name: "jack"}, Chain: own}, group)
	all := "rewrite access send response done"
	tests := []struct {
		name                string
		chain               *Chain
		kind                uint8
		phases              string
		filtered, preferred bool
	}{
		{"the route's alone", route, a, all, false, false},
		{"the route's under the group's", route, b, "rewrite", false, false},
		{"the group's over the route's", group, b, "access send response done", false, false},
		{"the route's under the consumer's", route, c, "rewrite", false, false},
		{"the consumer's over the route's", own, c, "access send response done", false, false},
		{"the group's that the consumer switches off", group, d, "", false, false},
		{"the group's with a filter", group, e, all, true, false},
		{"the global one that the route has", global, a, all, false, true},
		{"the global one that nobody runs", global, d, all, false, false},
		{"the global one that the group has", global, e, all, false, true},
		{"what is not there", own, a, "", false, false},
	}
	for _, tt := range tests {
		s := x.Standing(tt.chain, tt.kind)
		if got := strings.Join(s.Phases, " "); got != tt.phases || s.FilteredOut != tt.filtered || s.Preferred != tt.preferred {
			t.Errorf("%s: %+v", tt.name, s)
		}
	}
	if s := x.Standing(nil, a); len(s.Phases) != 0 || s.Phases == nil {
		t.Errorf("no chain: %+v", s)
	}
	if v, _ := x.Request.Header.Get("X-Consumer-Username"); string(v) != "jack" || x.Consumer.Name != "jack" {
		t.Errorf("the consumer is %q in the request", v)
	}
}

func TestStandingWithoutAConsumer(t *testing.T) {
	c := NewChain([]Instance{{Kind: 200, Plugin: mute{t}}})
	x := &Exchange{}
	x.Enter(nil, c)
	x.Preview(nil, NewChain([]Instance{{Kind: 200, Plugin: mute{t}}}))
	if got := strings.Join(x.Standing(c, 200).Phases, " "); got != "rewrite access send response done" || x.Principal() != nil {
		t.Errorf("phases %s", got)
	}
}

func TestDeciders(t *testing.T) {
	m := mute{t}
	filtered := SlotRange{Class: RouteSlots}
	slot := filtered.Reserve()
	route := NewChainOf([]Instance{
		{Kind: 1, Priority: 30, Plugin: divider{m, "route"}},
		{Kind: 2, Priority: 20, Plugin: m},
		{Kind: 3, Priority: 15, Plugin: divider{m, "filtered"}, When: never{}, Slot: slot},
		{Kind: 4, Priority: 10, Plugin: divider{m, "guarded"}, ErrorBody: []byte("no")},
	}, nil, filtered)
	own := NewChainOf([]Instance{{Kind: 5, Priority: 25, Plugin: divider{m, "own"}}}, nil, SlotRange{Class: ConsumerSlots})
	global := NewChainOf([]Instance{{Kind: 1, Plugin: divider{m, "global"}}}, nil, SlotRange{Class: GlobalSlots})
	x := &Exchange{}
	x.Enter(global, route)
	x.Preview(&Principal{Chain: own}, nil)
	var got []string
	for d := range x.Deciders() {
		name := d.Explain(x).Next
		if d.Global != (name == "global") {
			t.Errorf("%s: global is %v", name, d.Global)
		}
		got = append(got, name)
	}
	if want := []string{"global", "route", "own", "guarded"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for range x.Deciders() { // may be left early
		break
	}
}
