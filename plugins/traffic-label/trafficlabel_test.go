package trafficlabel

import (
	"fmt"
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRefusals(t *testing.T) {
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{"rules":[{"actions":[{"set_headers":{"X-A":"$uri","X-N":1},"weight":3},{"weight":2}]}]}`, ""},
		{`{}`, `property "rules" is required`},
		{`{"rules":[]}`, `property "rules" validation failed: expect array to have at least 1 items`},
		{`{"rules":[{}]}`, `property "rules" validation failed: failed to validate item 1: property "actions" is required`},
		{`{"rules":[{"actions":[{"weight":0}]}]}`, `property "rules" validation failed: failed to validate item 1: property "actions" ` +
			`validation failed: failed to validate item 1: property "weight" validation failed: expected 0 to be at least 1`},
		{`{"rules":[{"match":[["a","b","c"]],"actions":[{"weight":1}]}]}`,
			`failed to validate the 'match' expression: [["a","b","c"]] err: invalid operator 'b'`},
		{`{"rules":[{"actions":[{"drop":1}]}]}`, `not supported action: drop`},
		{`{"rules":[{"actions":[{"set_headers":{"X A":"1"}}]}]}`, `failed to validate the 'set_headers' action: invalid field character in header`},
		{`{"rules":[{"actions":[{"set_headers":{"X-A":"a\nb"}}]}]}`, `failed to validate the 'set_headers' action: invalid value character in header`},
		{`{"rules":[{"actions":[{"set_headers":{"set":{"X-A":"a"}}}]}]}`,
			`failed to validate the 'set_headers' action: property "set" validation failed: a value is a string or a number`},
		{`{"rules":[{"actions":[{"weight":1e19}]}]}`, `the weight is too large`},
	} {
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if err == nil {
			err = Kind().Validate([]byte(tt.conf))
		}
		if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestLabels(t *testing.T) {
	const byArgument = `{"rules":[{"match":[["arg_v","==","1"]],"actions":[{"set_headers":{"X-L":"one-$arg_v","X-M":2}}]},` +
		`{"match":["OR",["arg_v","==","1"],["arg_v","==","2"]],"actions":[{"set_headers":{"X-L":"two"}}]}]}`
	for _, tt := range []struct{ conf, request, want string }{
		{byArgument, "GET /a?v=1", "Other: o|X-L: one-1|X-M: 2"},
		{byArgument, "GET /a?v=2", "Other: o|X-L: two"},
		{byArgument, "GET /a", "Other: o|X-L: client's"},
		{`{"rules":[{"actions":[{"set_headers":{"Host":"h","Content-Length":"9","X-L":"all"}}]}]}`, "GET /", "Other: o|X-L: all"},
		{`{"rules":[{"actions":[{"weight":1}]},{"actions":[{"set_headers":{"X-L":"next"}}]}]}`, "GET /", "Other: o|X-L: next"},
		{`{"rules":[{"actions":[{"set_headers":{"X-L":"$arg_none"}}]}]}`, "GET /", "Other: o"},
	} {
		var e phasetest.Env
		i := phase.Instance{Plugin: e.Build(t, Kind(), tt.conf)}
		x := phasetest.Exchange(tt.request, "X-L: client's", "Other: o")
		if got := phasetest.Run(x, &e, phasetest.Reply(200, "up"), i); got != "200\n\nup" {
			t.Errorf("%s: %q", tt.request, got)
		}
		if got := strings.Join(phasetest.Lines(&x.Request.Header), "|"); got != tt.want {
			t.Errorf("%s %s\ngot  %s\nwant %s", tt.conf, tt.request, got, tt.want)
		}
	}
}

// Shares are exact, and go on where they were when the document is edited.
func TestShares(t *testing.T) {
	const conf = `{"rules":[{"actions":[{"set_headers":{"X-L":"a"},"weight":7},{"set_headers":{"X-L":"b"},"weight":2},{"weight":1}]}]}`
	var e phasetest.Env
	count := map[string]int{}
	for range 5 {
		p := e.Build(t, Kind(), conf).(phase.Accessor)
		for range 4 {
			x := phasetest.Exchange("GET /")
			p.Access(x)
			v, _ := x.Request.Header.Get("X-L")
			count[string(v)]++
		}
	}
	if count["a"] != 14 || count["b"] != 4 || count[""] != 2 {
		t.Errorf("of 20: %v", count)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"rules":[{"match":[["arg_v","==","1"]],"actions":[{"set_headers":{"X-L":"$arg_v"},"weight":3},{}]}]}`, "v=1")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		var e phasetest.Env
		p, err := Kind().Build([]byte(conf), &e)
		if err != nil {
			t.Fatal(err)
		}
		x := phasetest.Exchange("GET /?" + query)
		phasetest.Run(x, &e, nil, phase.Instance{Plugin: p})
		for _, l := range phasetest.Lines(&x.Request.Header) {
			if strings.ContainsAny(l, "\r\n") {
				t.Errorf("a line ends early: %q", l)
			}
		}
	})
}
