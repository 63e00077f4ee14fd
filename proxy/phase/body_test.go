package phase

import (
	"strings"
	"testing"
)

// picky is a chunk plugin that wants the bodies it is told to.
type picky struct {
	name string
	says bool
	log  *[]string
}

func (p picky) Wants(*Exchange) bool {
	*p.log = append(*p.log, p.name)
	return p.says
}

func (p picky) Chunk(_ *Exchange, b []byte, _ bool) ([]byte, error) { return b, nil }

func TestHasChunkers(t *testing.T) {
	var log []string
	never, always := filter(false), filter(true)
	for _, tt := range []struct {
		name   string
		route  []Instance
		global []Instance
		want   bool
		asked  string
	}{
		{"nobody", []Instance{{Plugin: picky{"a", false, &log}}}, []Instance{{Plugin: picky{"g", false, &log}}}, false, "a g"},
		{"the last one asked", []Instance{{Plugin: picky{"a", false, &log}}}, []Instance{{Plugin: picky{"g", true, &log}}}, true, "a g"},
		{"one of two", []Instance{{Plugin: picky{"a", true, &log}}, {Plugin: picky{"b", false, &log}}}, nil, true, "b a"},
		{"one that is not asked", []Instance{{Plugin: &probe{log: &log}}}, nil, true, ""},
		{"filtered out", []Instance{{Plugin: picky{"a", true, &log}, When: never}}, nil, false, ""},
		{"filtered in", []Instance{{Plugin: picky{"a", true, &log}, When: always}}, nil, true, "a"},
		{"filtered in, unwilling", []Instance{{Plugin: picky{"a", false, &log}, When: always}}, nil, false, "a"},
		{"filtered out, not asked", []Instance{{Plugin: &probe{log: &log}, When: never}}, nil, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log = nil
			x := &Exchange{}
			x.Begin(&Settings{})
			x.Enter(NewChainOf(tt.global, nil, SlotRange{Class: GlobalSlots}), NewChainOf(tt.route, nil, SlotRange{Class: RouteSlots, Count: 1}))
			for range 2 { // nobody is asked twice
				if got := x.HasChunkers(); got != tt.want {
					t.Errorf("got %v", got)
				}
			}
			if got := strings.Join(log, " "); got != tt.asked {
				t.Errorf("asked %q, want %q", got, tt.asked)
			}
			x.Reset()
			x.Enter(nil, NewChain([]Instance{{Plugin: picky{"next", !tt.want, &log}}}))
			if x.HasChunkers() == tt.want {
				t.Error("the next exchange got the answer of this one")
			}
		})
	}
}

type filter bool

func (f filter) True(*Exchange) bool { return bool(f) }

// taker writes down the lines that it receives.
type taker struct {
	name string
	log  *[]string
}

func (r taker) Receive(_ *Exchange, lines []Field) {
	for _, f := range lines {
		*r.log = append(*r.log, r.name+":"+string(f.Name))
	}
}

func TestReceiveLastPluginFirst(t *testing.T) {
	var log []string
	x := &Exchange{}
	x.Begin(&Settings{})
	x.Enter(NewChain([]Instance{{Plugin: taker{"g", &log}}}), NewChainOf([]Instance{{Plugin: taker{"a", &log}}, {Plugin: taker{"b", &log}},
		{Plugin: taker{"c", &log}, When: filter(false)}}, nil, SlotRange{Class: RouteSlots, Count: 1}))
	for _, name := range []string{"Own", "Up", "Up2"} {
		x.Response.Header.Add([]byte(name), nil)
	}
	x.Receive(1)
	if got := strings.Join(log, " "); got != "b:Up b:Up2 a:Up a:Up2 g:Up g:Up2" {
		t.Errorf("received %s", got)
	}
	log = nil
	x.Receive(9)
	if len(log) != 0 {
		t.Errorf("received %v of nothing", log)
	}
}
