package attachconsumerlabel

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
	for conf, want := range map[string]string{
		`{"headers":{"X-A":"$a"}}`: "<nil>",
		`{}`:                       `property "headers" is required`,
		`{"headers":{}}`:           `property "headers" validation failed: expect object to have at least 1 properties`,
		`{"headers":{"X-A":"a"}}`: `property "headers" validation failed: failed to validate additional property X-A: ` +
			`failed to match pattern "^\\$.*" with "a"`,
		`{"headers":{"X-A":1}}`:    `property "headers" validation failed: failed to validate additional property X-A: wrong type: expected string, got number`,
		`{"headers":{"X A":"$a"}}`: `property "headers" validation failed: "X A" is not the name of a header line`,
	} {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if err == nil {
			err = Kind().Validate([]byte(conf))
		}
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", conf, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	const conf = `{"headers":{"X-Plan":"$plan","X-Team":"$team"}}`
	for _, tt := range []struct {
		labels map[string]string
		want   string
	}{
		{map[string]string{"plan": "gold", "team": "a", "other": "o"}, "Other: o|X-Plan: gold|X-Team: a"},
		{map[string]string{"plan": "gold"}, "Other: o|X-Plan: gold"},
		{map[string]string{"plan": "a\r\nb: c", "team": ""}, "Other: o"},
		{nil, "Other: o"},
	} {
		var e phasetest.Env
		chain := phase.NewChainOf([]phase.Instance{{Plugin: e.Build(t, Kind(), conf)}}, nil, e.Slots)
		x := phasetest.Exchange("GET /", "x-plan: client's", "x-team: client's", "Other: o")
		x.Consumer.Labels = tt.labels
		x.Enter(nil, chain)
		for range 2 { // attempts
			x.Send()
		}
		if got := strings.Join(phasetest.Lines(&x.Request.Header), "|"); !strings.EqualFold(got, tt.want) {
			t.Errorf("%v\ngot  %s\nwant %s", tt.labels, got, tt.want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"headers":{"X-A":"$a","x-b":"$"}}`, "v")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, value string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		x := phasetest.Exchange("GET /")
		x.Consumer.Labels = map[string]string{"a": value, "": value}
		var e phasetest.Env
		e.Build(t, Kind(), conf).(phase.Sender).Send(x)
		for _, l := range phasetest.Lines(&x.Request.Header) {
			if strings.ContainsAny(l, "\r\n") {
				t.Errorf("a line ends early: %q", l)
			}
		}
	})
}
