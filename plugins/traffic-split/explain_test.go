package trafficsplit

import (
	"maps"
	"strings"
	"testing"

	"headgate/proxy/phase"
)

func TestExplain(t *testing.T) {
	const first = `{"match":[{"vars":[["arg_v","==","2"]]},{"vars":[["arg_v","==","3"]]}],"weighted_upstreams":[{"upstream_id":"one","weight":9},{"weight":1}]}`
	tests := []struct {
		name, conf, target string
		rule               int
		next, upstream     string
		why                string
	}{
		{"second alternative", first, "/?v=3", 0, "one", "one", "match[1] of rule 0 holds"},
		{"nothing matches", first, "/?v=4", -1, "", "default", "none of the 1 rules matches"},
		{"no rules", ``, "/", -1, "", "default", "there are no rules"},
		{"for every request", `{"weight":1,"name":"a","rewrite":{"uri":"/x"}}`, "/", 0, "a", "default", "rule 0 is for every request"},
		{"weights of 0", `{"weighted_upstreams":[{"upstream_id":"one","weight":0}]}`, "/", 0, "", "default",
			"rule 0 is for every request; all weights are 0, so the route's own upstream serves"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := &phase.Exchange{}
			prepare(x, tt.target)
			c := built(t, newEnv("one"), `{"rules":[`+tt.conf+`]}`).Explain(x)
			if c.Rule != tt.rule || c.Next != tt.next || c.Why != tt.why || x.Upstream.Name() != tt.upstream || c.Branches == nil || c.Status != 0 {
				t.Errorf("%+v, to %s", c, x.Upstream.Name())
			}
			if len(x.Request.OutTarget) != 0 || x.Response.Status != 0 {
				t.Error("the exchange was rewritten or answered")
			}
		})
	}
}

func TestExplainMissingUpstream(t *testing.T) {
	x := &phase.Exchange{}
	prepare(x, "/")
	c := built(t, newEnv(), `{"rules":[{"weight":1,"upstream_id":"none"}]}`).Explain(x)
	if c.Status != 500 || !strings.Contains(c.Answer, "upstream id: none") || c.Next != "" || x.Upstream != own {
		t.Errorf("%+v", c)
	}
}

// What is said to be next is next, the shares are those of the table, and asking neither counts nor takes a slot.
func TestExplainTakesNothing(t *testing.T) {
	e := newEnv("one", "two")
	p := built(t, e, `{"rules":[{"weight":7,"upstream_id":"one"},{"weight":3,"upstream_id":"two"}]}`)
	got := map[string]int{}
	for range 100 {
		var c *phase.Choice
		for range 100 {
			x := &phase.Exchange{}
			prepare(x, "/")
			if c = p.Explain(x); x.Branch != c.Next || x.Upstream.Name() != c.Next {
				t.Fatalf("%+v, to %s", c, x.Branch)
			}
		}
		if c.Branches[0].Share != 0.7 || c.Branches[1].Weight != 3 || c.Branches[1].Upstream != "two" {
			t.Fatalf("%+v", c.Branches)
		}
		if branch := visit(p, "/"); branch != c.Next {
			t.Fatalf("went to %s, %s was next", branch, c.Next)
		}
		got[c.Next]++
	}
	if want := map[string]int{"one": 70, "two": 30}; !maps.Equal(got, want) || e.counters["one"].n != 70 {
		t.Errorf("got %v, counted %d", got, e.counters["one"].n)
	}
}
