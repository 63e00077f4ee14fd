package multiauth

import (
	"errors"
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// env builds one kind of plugin, which reads one line called like itself; the names of the contract's texts are refused with them.
type env struct {
	*phasetest.Env
	confs []string
}

func (e *env) Plugin(name string, conf []byte) (any, error) {
	switch name {
	case "nope":
		return nil, errors.New("nope plugin did not found")
	case "cors":
		return nil, errors.New("cors plugin is not supported")
	case "log":
		return finisher{}, nil
	}
	e.confs = append(e.confs, name+string(conf))
	return &check{name, []byte("WWW-Authenticate"), []byte(name + ` realm="r"`)}, nil
}

type finisher struct{}

func (finisher) Done(*phase.Exchange) {}

// check lets a request with the right line in.
type check struct {
	name            string
	line, challenge []byte
}

func (c *check) Rewrite(x *phase.Exchange) phase.Verdict {
	if v, _ := x.Request.Header.Get(c.name); string(v) == "right" {
		x.Consumer.Name = c.name
		return phase.Continue
	}
	x.Response.Header.Set(c.line, c.challenge)
	x.Answer(403, phase.TypeText, c.challenge)
	return phase.Stop
}

func TestRewrite(t *testing.T) {
	const conf = `{"auth_plugins":[{"a":{}},{"b":{"x":1}},{},{"c":{},"b2":{}}]}`
	const refused = "401\nContent-Type: text/plain; charset=utf-8\nWWW-Authenticate: b2 realm=\"r\"\n\n{\"message\":\"Authorization Failed\"}\n"
	for _, tt := range []struct {
		lines     []string
		who, want string
	}{
		{nil, "", refused},
		{[]string{"a: wrong", "d: right"}, "", refused},
		{[]string{"a: right"}, "a", "200\nContent-Type: text/html\n\nserved"},
		{[]string{"a: right", "b: right"}, "a", "200\nContent-Type: text/html\n\nserved"},
		{[]string{"a: wrong", "b: right"}, "b", "200\nContent-Type: text/html\nWWW-Authenticate: a realm=\"r\"\n\nserved"},
		{[]string{"b2: right"}, "b2", "200\nContent-Type: text/html\nWWW-Authenticate: c realm=\"r\"\n\nserved"},
	} {
		e := &env{Env: &phasetest.Env{}}
		p, err := Kind().Build([]byte(conf), e)
		if err != nil {
			t.Fatal(err)
		}
		x := phasetest.Exchange("GET /a", tt.lines...)
		got := phasetest.Run(x, e.Env, phasetest.Reply(200, "served", "Content-Type: text/html"), phase.Instance{Name: "multi-auth", Plugin: p})
		if got != tt.want || x.Consumer.Name != tt.who {
			t.Errorf("%v: %s got\n%s\nwant\n%s", tt.lines, x.Consumer.Name, got, tt.want)
		}
		if confs := strings.Join(e.confs, " "); confs != `a{} b{"x":1} c{} b2{}` {
			t.Errorf("built %s", confs)
		}
	}
}

// An answer that was taken back leaves nothing but the challenge.
func TestWithdrawn(t *testing.T) {
	e := &env{Env: &phasetest.Env{}}
	p, err := Kind().Build([]byte(`{"auth_plugins":[{"a":{}},{"b":{}}]}`), e)
	if err != nil {
		t.Fatal(err)
	}
	x := phasetest.Exchange("GET /a", "b: right")
	if p.(phase.Rewriter).Rewrite(x) != phase.Continue {
		t.Fatal("refused")
	}
	r := &x.Response
	if lines := phasetest.Lines(&r.Header); r.Status != 0 || r.Body != nil || len(lines) != 1 {
		t.Errorf("left over: %d %q %v", r.Status, r.Body, lines)
	}
}

// refusal returns the text that a write is refused with, "" when it isn't.
func refusal(t testing.TB, conf string) string {
	t.Helper()
	s, err := schema.Compile("multi-auth", Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	if err = s.Validate(doc); err == nil {
		_, err = Kind().Build([]byte(conf), &env{Env: &phasetest.Env{}})
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// The texts are those of the contract's recorded answers, except for the items that name nothing, which are taken there.
func TestRefusals(t *testing.T) {
	for conf, want := range map[string]string{
		`{"auth_plugins":[{"a":{}},{"b":{}}],"other":1}`: "",
		`{"auth_plugins":[{"a":{}},[]]}`:                 "",
		`{}`:                                             `property "auth_plugins" is required`,
		`{"Auth_plugins":[{"a":{}},{"b":{}}]}`:           `property "auth_plugins" is required`,
		`{"auth_plugins":[{"a":{}}]}`:                    `property "auth_plugins" validation failed: expect array to have at least 2 items`,
		`{"auth_plugins":[{"nope":{}},{"a":{}}]}`:        `nope plugin did not found`,
		`{"auth_plugins":[{"a":{}},{"cors":{}}]}`:        `cors plugin is not supported`,
		`{"auth_plugins":[{"a":{}},{"log":{}}]}`:         `log plugin is not supported`,
		`{"auth_plugins":[{},{}]}`:                       `auth_plugins: none of the items names a plugin`,
		`{"auth_plugins":["a","b"]}`:                     `property "auth_plugins" validation failed: failed to validate item 1: wrong type: expected object, got string`,
		`{"auth_plugins":{"a":{},"b":{}}}`:               `property "auth_plugins" validation failed: wrong type: expected array, got table`,
	} {
		if got := refusal(t, conf); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", conf, got, want)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := &env{Env: &phasetest.Env{}}
	built, err := Kind().Build([]byte(`{"auth_plugins":[{"a":{}},{"b":{}}]}`), e)
	if err != nil {
		t.Fatal(err)
	}
	p, x, from := built.(phase.Rewriter), &phase.Exchange{}, phasetest.Exchange("GET /a", "b: right")
	n := testing.AllocsPerRun(100, func() {
		x.Reset()
		for _, f := range from.Request.Header.Fields() {
			x.Request.Header.Add(f.Name, f.Value)
		}
		if p.Rewrite(x) != phase.Continue {
			t.Fatal("refused")
		}
	})
	if n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{"auth_plugins":[{"a":{}},{"b":{"x":[1,{}]}}]}`, `{"auth_plugins":[{},[]]}`, `{"auth_plugins":{}}`, `[]`,
		`{"auth_plugins":[{"a":1,"a":null},{}],"auth_plugins":[{},{"\u0061":2}]}`} {
		f.Add([]byte(s))
	}
	s, err := schema.Compile("multi-auth", Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf []byte) {
		doc, err := schema.DecodeJSON(conf)
		if err != nil || s.Validate(doc) != nil {
			return
		}
		p, err := Kind().Build(conf, &env{Env: &phasetest.Env{}})
		if err != nil {
			return
		}
		if p.(phase.Rewriter).Rewrite(phasetest.Exchange("GET /")) != phase.Stop {
			t.Fatalf("%s lets everybody in", conf)
		}
	})
}
