package phase

import (
	"strings"
	"testing"
)

// passer passes over kinds in its access phase.
type passer struct{ kinds []uint8 }

func (p passer) Access(x *Exchange) Verdict {
	for _, k := range p.kinds {
		x.PassOver(k)
	}
	return Continue
}

func TestPassOver(t *testing.T) {
	var log []string
	with := func(class int, list ...Instance) *Chain { return NewChainOf(list, nil, SlotRange{Class: class}) }
	probeOf := func(name string, kind uint8, priority int) Instance {
		return Instance{Name: name, Plugin: &probe{name: name, log: &log}, Kind: kind, Priority: priority}
	}
	pass := func(kinds ...uint8) Instance { return Instance{Plugin: passer{kinds}, Kind: 9, Priority: 5} }
	consumer := &Principal{Consumer: Consumer{Name: "jack"}, Chain: with(ConsumerSlots, probeOf("own", 3, 2))}
	for _, tt := range []struct {
		name          string
		global, route *Chain
		consumer      *Principal
		want          string
	}{
		{"what is behind", nil, with(RouteSlots, probeOf("before", 1, 9), pass(1, 2), probeOf("one", 1, 3), probeOf("two", 2, 2), probeOf("three", 3, 1)), nil, "before three"},
		{"with a consumer", nil, with(RouteSlots, pass(2, 3), probeOf("two", 2, 2), probeOf("one", 1, 1)), consumer, "one"},
		{"global rules have no say about routes", with(GlobalSlots, pass(1), probeOf("g1", 1, 2), probeOf("g2", 2, 1)), with(RouteSlots, probeOf("one", 1, 1)), nil, "g2 one"},
	} {
		log = nil
		x := &Exchange{}
		x.Begin(&Settings{})
		x.Enter(tt.global, tt.route)
		if tt.consumer != nil {
			x.principal = tt.consumer
			x.Join(nil)
			log = nil
		}
		x.AccessGlobal()
		x.Access()
		if got := strings.ReplaceAll(strings.Join(log, " "), ".access", ""); got != tt.want {
			t.Errorf("%s: %q ran, want %q", tt.name, got, tt.want)
		}
		// The other phases are as ever, and the next exchange knows nothing of it.
		log = nil
		x.Finish(func(any) {})
		if len(log) == 0 {
			t.Errorf("%s: nobody was told of the end", tt.name)
		}
		x.Reset()
		x.Enter(nil, with(RouteSlots, probeOf("one", 1, 1)))
		log = nil
		x.Access()
		if strings.Join(log, " ") != "one.access" {
			t.Errorf("%s: then %v ran", tt.name, log)
		}
	}
}
