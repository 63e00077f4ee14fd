package workflow

import (
	"errors"
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

// rig has a stand-in for the limits: it writes down what it is built from and what it is asked.
type rig struct {
	phasetest.Env
	confs []string
	log   []string
}

func newRig() *rig {
	r := &rig{}
	for _, name := range []string{limitCount, limitConn} {
		r.Kinds = append(r.Kinds, phase.Kind{Name: name, Build: func(conf []byte, env phase.Env) (any, error) {
			if strings.Contains(string(conf), "bad") {
				return nil, errors.New("failed to check the configuration of plugin " + name + " err: bad limit")
			}
			r.confs = append(r.confs, string(conf))
			return &limit{r, name, strings.Contains(string(conf), "full")}, nil
		}})
	}
	return r
}

type limit struct {
	rig  *rig
	name string
	full bool
}

func (l *limit) Access(x *phase.Exchange) phase.Verdict {
	l.rig.log = append(l.rig.log, l.name+" access")
	if l.full {
		x.AnswerPage(429)
		return phase.Stop
	}
	return phase.Continue
}

func (l *limit) Done(*phase.Exchange) { l.rig.log = append(l.rig.log, l.name+" done") }

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{"rules":[]}`, ""},
		{`{"rules":[{"case":[["a","=","b"]],"actions":[["return",{"code":403}]]}]}`, ""},
		{`{"rules":[{"actions":[["limit-count",{"count":1,"time_window":1}],["limit-conn",{}]]}]}`, ""},
		{`{}`, `property "rules" is required`},
		{`{"rules":[{"case":[["a","==","b"]]}]}`, `property "rules" validation failed: failed to validate item 1: property "actions" is required`},
		{`{"rules":[{"actions":[["return",{"code":99}]]}]}`,
			`failed to validate the 'return' action: property "code" validation failed: expected 99 to be at least 100`},
		{`{"rules":[{"actions":[["return"]]}]}`, `failed to validate the 'return' action: property "code" is required`},
		{`{"rules":[{"actions":[["return",{"code":200}],["limit-req",{}]]}]}`, `unsupported action: limit-req`},
		{`{"rules":[{"actions":[[1]]}]}`, `unsupported action: 1`},
		{`{"rules":[{"actions":[]}]}`, `a rule has no action`},
		{`{"rules":[{"actions":[["limit-count",{"bad":1}]]}]}`, `failed to validate the 'limit-count' action: bad limit`},
	} {
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if err == nil {
			err = Kind().Validate([]byte(tt.conf))
		}
		if err == nil {
			_, err = Kind().Build([]byte(tt.conf), newRig())
		}
		if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// Build is given the rig as its environment; Env.Plugin of phasetest would hand on its own.
func (r *rig) run(t testing.TB, conf, request string) string {
	t.Helper()
	p, err := Kind().Build([]byte(conf), r)
	if err != nil {
		t.Fatal(err)
	}
	return phasetest.Run(phasetest.Exchange(request), &r.Env, phasetest.Reply(200, "upstream"), phase.Instance{Plugin: p})
}

func TestAnswers(t *testing.T) {
	const rejected = "\nContent-Type: text/plain; charset=utf-8\n\n{\"error_msg\":\"rejected by workflow\"}\n"
	const two = `{"rules":[{"case":[["arg_a","==","1"]],"actions":[["return",{"code":401}],["return",{"code":599}]]},` +
		`{"case":["OR",["arg_b","==","1"],["uri","==","/b"]],"actions":[["return",{"code":402}]]}]}`
	for _, tt := range []struct{ conf, request, want string }{
		{two, "GET /x?a=1&b=1", "401" + rejected},
		{two, "GET /x?b=1", "402" + rejected},
		{two, "GET /b", "402" + rejected},
		{two, "GET /x", "200\n\nupstream"},
		{`{"rules":[{"actions":[["return",{"code":200}]]}]}`, "GET /", "200" + rejected},
		{`{"rules":[]}`, "GET /", "200\n\nupstream"},
	} {
		if got := newRig().run(t, tt.conf, tt.request); got != tt.want {
			t.Errorf("%s %s\ngot  %q\nwant %q", tt.conf, tt.request, got, tt.want)
		}
	}
	for _, conf := range []string{
		`{"rules":[{"case":[["a","=","b"]],"actions":[["return",{"code":200}]]}]}`, // nobody knows whom it is for
		`{"rules":[{"actions":[["return",{"code":100}]]}]}`,
	} {
		if got := newRig().run(t, conf, "GET /"); !strings.HasPrefix(got, "500\nContent-Type: text/html; charset=utf-8\n") {
			t.Errorf("%s: %q", conf, got)
		}
	}
}

func TestLimits(t *testing.T) {
	r := newRig()
	const conf = `{"rules":[{"case":[["uri","==","/count"]],"actions":[["limit-count",{"x":1}]]},` +
		`{"case":[["uri","==","/conn"]],"actions":[["limit-conn",{}],["limit-count",{"x":1}]]},` +
		`{"case":[["uri","==","/full"]],"actions":[["limit-count",{"full":1}]]}]}`
	for request, want := range map[string]string{
		"GET /count": "200\n\nupstream|[limit-count access limit-count done]",
		"GET /conn":  "200\n\nupstream|[limit-conn access limit-conn done]",
		"GET /other": "200\n\nupstream|[]",
	} {
		r.log = nil
		if got := r.run(t, conf, request) + "|" + fmt.Sprint(r.log); got != want {
			t.Errorf("%s: got %q, want %q", request, got, want)
		}
	}
	r.log = nil
	if got := r.run(t, conf, "GET /full"); !strings.HasPrefix(got, "429\n") || fmt.Sprint(r.log) != "[limit-count access limit-count done]" {
		t.Errorf("refused: %q %v", got, r.log)
	}
}

// Limits count under their configuration: rules that say the same have different ones, the members of a group do not.
func TestRulesCountForThemselves(t *testing.T) {
	r := newRig()
	conf := `{"rules":[{"actions":[["limit-count",{"count":1}]]},{"actions":[["limit-count",{"count":1}]]},` +
		`{"actions":[["limit-count",{"count":1,"group":"g"}]]},{"actions":[["limit-count",{"count":1,"group":"g"}]]}]}`
	r.run(t, conf, "GET /")
	if r.confs[0] == r.confs[1] || r.confs[2] != r.confs[3] {
		t.Errorf("built from %q", r.confs)
	}
	before := r.confs
	r.confs = nil
	if r.run(t, conf, "GET /"); fmt.Sprint(r.confs) != fmt.Sprint(before) {
		t.Errorf("built from %q, then from %q", before, r.confs)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"rules":[{"case":[["arg_a","==","1"]],"actions":[["return",{"code":401}]]}]}`, "a=1")
	f.Add(`{"rules":[{"actions":[["limit-conn",{"conn":1}],["limit-count",null]]}]}`, "")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		r := newRig()
		if _, err := Kind().Build([]byte(conf), r); err != nil {
			return
		}
		r.run(t, conf, "GET /?"+query)
	})
}

// A limit that a rule has put on the request takes the place of the route's own (contract section 4.4).
func TestActionsStandInForTheRoute(t *testing.T) {
	for request, want := range map[string]string{
		"GET /?a=1": "limit-count access, limit-conn of the route, limit-count done",
		"GET /?a=2": "limit-conn access, limit-count of the route, limit-conn done",
		"GET /":     "limit-conn of the route, limit-count of the route",
	} {
		r := newRig()
		p, err := Kind().Build([]byte(`{"rules":[{"case":[["arg_a","==","1"]],"actions":[["limit-count",{}]]},`+
			`{"case":[["arg_a","==","2"]],"actions":[["limit-conn",{}]]}]}`), r)
		if err != nil {
			t.Fatal(err)
		}
		ofRoute := func(name string) phase.Instance {
			kind, _ := r.Number(name)
			return phase.Instance{Plugin: noted{r, name}, Kind: kind}
		}
		phasetest.Run(phasetest.Exchange(request), &r.Env, phasetest.Reply(200, ""), phase.Instance{Plugin: p}, ofRoute(limitConn), ofRoute(limitCount))
		if got := strings.Join(r.log, ", "); got != want {
			t.Errorf("%s: %s; want %s", request, got, want)
		}
	}
}

type noted struct {
	rig  *rig
	name string
}

func (n noted) Access(*phase.Exchange) phase.Verdict {
	n.rig.log = append(n.rig.log, n.name+" of the route")
	return phase.Continue
}
