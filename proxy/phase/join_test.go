package phase

import (
	"slices"
	"strings"
	"testing"
)

// ranked makes a chain of probes with priorities; off are the kinds that its document switches off.
func ranked(log *[]string, class int, off []uint8, instances ...Instance) *Chain {
	for i := range instances {
		instances[i].Plugin = &probe{name: instances[i].Name, log: log}
	}
	slices.SortStableFunc(instances, func(p, q Instance) int { return q.Priority - p.Priority })
	return NewChainOf(instances, off, SlotRange{Class: class})
}

func TestJoinedChains(t *testing.T) {
	var log []string
	const a, b, c, d, e, f = 1, 2, 3, 4, 5, 200
	route := ranked(&log, RouteSlots, nil, Instance{Name: "a.route", Kind: a, Priority: 90}, Instance{Name: "b.route", Kind: b, Priority: 70},
		Instance{Name: "c.route", Kind: c, Priority: 50}, Instance{Name: "f.route", Kind: f, Priority: 10})
	group := ranked(&log, GroupSlots, []uint8{f}, Instance{Name: "b.group", Kind: b, Priority: 70}, Instance{Name: "d.group", Kind: d, Priority: 80})
	own := ranked(&log, ConsumerSlots, nil, Instance{Name: "c.own", Kind: c, Priority: 95}, Instance{Name: "d.own", Kind: d, Priority: 60},
		Instance{Name: "e.own", Kind: e, Priority: 1})
	x := &Exchange{}
	x.Begin(&Settings{})
	x.Enter(nil, route)
	x.Rewrite()
	x.AttachPrincipal(&Principal{Consumer: Consumer{Name: "jack"}, Chain: own})
	x.Join(group)
	x.Access()
	x.Send()
	x.Respond()
	x.Response.Body, _ = x.Chunk(nil, true)
	x.Finish(func(any) {})
	steps := map[string][]string{}
	var order []string
	for _, s := range log {
		i := strings.LastIndexByte(s, '.')
		if steps[s[i+1:]] == nil {
			order = append(order, s[i+1:])
		}
		steps[s[i+1:]] = append(steps[s[i+1:]], s[:i])
	}
	// c stands before all others, because the consumer says so; what the route has is not rewritten a second time.
	forward := "c.own a.route b.group d.own e.own"
	backward := "e.own d.own b.group a.route c.own"
	for _, want := range [][2]string{
		{"rewrite", "a.route b.route c.route f.route d.own e.own"}, {"access", forward}, {"send", forward}, {"response", backward},
		{"chunk", backward}, {"done", forward},
	} {
		if got := strings.Join(steps[want[0]], " "); got != want[1] {
			t.Errorf("%s: %s, want %s", want[0], got, want[1])
		}
	}
	if got := strings.Join(order, " "); got != "rewrite access send response chunk done" {
		t.Errorf("phases: %s", got)
	}
}

func TestJoinWithoutPlugins(t *testing.T) {
	var log []string
	x := &Exchange{}
	x.Begin(&Settings{})
	x.Enter(nil, ranked(&log, RouteSlots, nil, Instance{Name: "a"}))
	if x.Join(nil) != Continue || x.joined {
		t.Error("joined nobody")
	}
	x.AttachPrincipal(&Principal{Consumer: Consumer{Name: "jack"}})
	if x.Join(nil) != Continue || x.joined {
		t.Error("joined a consumer without plugins")
	}
	// A route without plugins takes those of the consumer that a global rule has found.
	x = &Exchange{}
	x.Begin(&Settings{})
	x.Enter(ranked(&log, GlobalSlots, nil, Instance{Name: "g"}), nil)
	x.AttachPrincipal(&Principal{Chain: ranked(&log, ConsumerSlots, nil, Instance{Name: "own"})})
	x.Join(nil)
	log = nil
	x.AccessGlobal()
	x.Access()
	if got := strings.Join(log, " "); got != "g.access own.access" {
		t.Errorf("met %s", got)
	}
}

// A plugin that prefers the route runs in a global rule only where the route does not have it, or has switched it off.
func TestPreferRoute(t *testing.T) {
	var log []string
	global := ranked(&log, GlobalSlots, nil, Instance{Name: "g", Kind: 7, Prefer: true})
	for _, tt := range []struct {
		name  string
		route *Chain
		own   *Chain
		want  string
	}{
		{"no plugins", nil, nil, "g.done"},
		{"in the route", ranked(&log, RouteSlots, nil, Instance{Name: "r", Kind: 7}), nil, "r.done"},
		{"switched off in the route", ranked(&log, RouteSlots, []uint8{7}), nil, "g.done"},
		{"in the consumer", nil, ranked(&log, ConsumerSlots, nil, Instance{Name: "c", Kind: 7}), "c.done"},
		{"switched off in the consumer", ranked(&log, RouteSlots, nil, Instance{Name: "r", Kind: 7}), ranked(&log, ConsumerSlots, []uint8{7}), "g.done"},
	} {
		x := &Exchange{}
		x.Begin(&Settings{})
		x.Enter(global, tt.route)
		x.AttachPrincipal(&Principal{Chain: tt.own})
		x.Join(nil)
		log = nil
		x.Finish(func(any) {})
		if got := strings.Join(log, " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAttachTellsTheUpstream(t *testing.T) {
	x := &Exchange{}
	x.Begin(&Settings{})
	x.Request.Header.Add([]byte("X-Credential-Identifier"), []byte("forged"))
	x.Attach(&Credential{Principal: &Principal{Consumer: Consumer{Name: "jack", CustomID: "7"}}, ID: "c1"})
	lines := func() string {
		var list []string
		for _, f := range x.Request.Header.Fields() {
			list = append(list, string(f.Name)+"="+string(f.Value))
		}
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	if got := lines(); got != "X-Consumer-Custom-ID=7 X-Consumer-Username=jack X-Credential-Identifier=c1" {
		t.Errorf("lines: %s", got)
	}
	if x.Consumer.Name != "jack" || x.Consumer.CredentialID != "c1" {
		t.Errorf("consumer %+v", x.Consumer)
	}
	// Somebody else without them leaves nothing of the first.
	x.AttachPrincipal(&Principal{Consumer: Consumer{Name: "anonymous"}})
	if got := lines(); got != "X-Consumer-Username=anonymous" || x.Consumer.CredentialID != "" {
		t.Errorf("lines: %s", got)
	}
}

func TestJoinDoesNotAllocate(t *testing.T) {
	p := &every{[]byte("X-Tag"), []byte("a")}
	route := NewChainOf([]Instance{{Name: "a", Plugin: p, Kind: 1, Priority: 5}}, nil, SlotRange{Count: 1})
	own := NewChainOf([]Instance{{Name: "b", Plugin: p, Kind: 2, Priority: 6}}, nil, SlotRange{ConsumerSlots, 1})
	principal := &Principal{Consumer: Consumer{Name: "jack"}, Chain: own}
	settings, x, panicked := &Settings{}, &Exchange{}, func(any) {}
	cycle := func() {
		x.Begin(settings)
		x.Enter(nil, route)
		x.Rewrite()
		x.Attach(&Credential{Principal: principal})
		x.Join(nil)
		x.Access()
		x.Send()
		x.Respond()
		x.Finish(panicked)
		x.Reset()
	}
	cycle()
	if n := testing.AllocsPerRun(100, cycle); n != 0 && !raceEnabled {
		t.Errorf("an exchange with a consumer allocates %v times", n)
	}
}
