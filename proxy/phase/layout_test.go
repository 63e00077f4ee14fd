package phase

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// Chains share their layout exactly when nothing that shows in it differs.
func TestLayouts(t *testing.T) {
	var known Layouts
	one := func(name string, kind uint8, priority int, plugin any) []Instance {
		return []Instance{{Name: name, Kind: kind, Priority: priority, Plugin: plugin}}
	}
	base := known.NewChain(one("a", 1, 10, &probe{}), nil, SlotRange{})
	for name, tt := range map[string]struct {
		instances []Instance
		off       []uint8
		shares    bool
	}{
		"equal":            {one("a", 1, 10, &probe{}), nil, true},
		"guarded":          {[]Instance{{Name: "a", Kind: 1, Priority: 10, Plugin: &probe{}, ErrorBody: []byte("x")}}, nil, true},
		"other name":       {one("b", 1, 10, &probe{}), nil, false},
		"other kind":       {one("a", 2, 10, &probe{}), nil, false},
		"other priority":   {one("a", 1, 11, &probe{}), nil, false},
		"other phases":     {one("a", 1, 10, onlyDone{}), nil, false},
		"one switched off": {one("a", 1, 10, &probe{}), []uint8{3}, false},
		"one more":         {append(one("a", 1, 10, &probe{}), one("b", 2, 10, &probe{})...), nil, false},
	} {
		c := known.NewChain(tt.instances, tt.off, SlotRange{})
		if shares := c.layout == base.layout; shares != tt.shares {
			t.Errorf("%s: shares %v", name, shares)
		}
		alone := NewChainOf(tt.instances, tt.off, SlotRange{})
		if !slices.Equal(c.Names, alone.Names) || c.has != alone.has || c.runs != alone.runs || fmt.Sprint(c.places) != fmt.Sprint(alone.places) {
			t.Errorf("%s: %+v, alone it is %+v", name, c.layout, alone.layout)
		}
	}
}

// However many layouts there are, only so many are remembered, and all are right.
func TestLayoutsAreBounded(t *testing.T) {
	var known Layouts
	var running sync.WaitGroup
	for w := range 4 {
		running.Go(func() {
			for n := range maxLayouts {
				priority := n*4 + w
				c := known.NewChain([]Instance{{Name: "a", Kind: 1, Priority: priority, Plugin: onlyDone{}}}, nil, SlotRange{})
				if got := c.places[donePhase]; len(got) != 1 || got[0].priority != priority {
					t.Errorf("priority %d: %v", priority, got)
				}
			}
		})
	}
	running.Wait()
	if n := len(known.known); n == 0 || n > maxLayouts {
		t.Errorf("%d are remembered", n)
	}
}
