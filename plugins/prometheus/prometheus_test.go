package prometheus

import (
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

// env gives out a recorder and notes which.
type env struct {
	phase.Env
	preferName bool
	recorded   int
}

func (e *env) Recorder(preferName bool) phase.Recorder {
	e.preferName = preferName
	return e
}

func (e *env) Record(*phase.Exchange) { e.recorded++ }

func TestDone(t *testing.T) {
	for conf, want := range map[string]bool{`{}`: false, `{"prefer_name":true}`: true, `{"prefer_name":false}`: false} {
		e := &env{}
		p, err := Kind().Build([]byte(conf), e)
		if err != nil {
			t.Fatal(err)
		}
		x := &phase.Exchange{}
		if n := testing.AllocsPerRun(100, func() { p.(phase.Finisher).Done(x) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		if e.preferName != want || e.recorded != 101 { // AllocsPerRun warms up once
			t.Errorf("%s: prefer_name %v, %d recorded", conf, e.preferName, e.recorded)
		}
	}
	if _, err := Kind().Build([]byte(`{"prefer_name":"x"}`), &env{}); err == nil {
		t.Error("a text was taken for a boolean")
	}
}

func TestSchema(t *testing.T) {
	s, err := schema.Compile("prometheus", Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Validate(map[string]any{"prefer_name": "x"})
	if want := `property "prefer_name" validation failed: wrong type: expected boolean, got string`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := s.Validate(map[string]any{"prefer_name": true, "other": 1}); err != nil {
		t.Error(err)
	}
}

// A route with the plugin under a global rule with it must not count twice.
func TestRouteIsPreferred(t *testing.T) {
	if k := Kind(); !k.PreferRoute || k.Priority != 500 {
		t.Errorf("%+v", k)
	}
}
