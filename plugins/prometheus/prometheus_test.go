package prometheus

import (
	"slices"
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
)

// env gives out a recorder and notes which.
type env struct {
	phase.Env
	metadata string
	asked    phase.RecorderOptions
	recorded int
}

func (e *env) Recorder(o phase.RecorderOptions) phase.Recorder {
	e.asked = o
	return e
}

func (e *env) Metadata() []byte {
	if e.metadata == "" {
		return nil
	}
	return []byte(e.metadata)
}

func (e *env) Record(*phase.Exchange) { e.recorded++ }

func TestDone(t *testing.T) {
	for conf, want := range map[string]bool{`{}`: false, `{"prefer_name":true}`: true, `{"prefer_name":false}`: false, `[]`: false, `{"Prefer_Name":true}`: false} {
		e := &env{}
		p, err := Kind().Build([]byte(conf), e)
		if err != nil {
			t.Fatal(err)
		}
		x := &phase.Exchange{}
		if n := testing.AllocsPerRun(100, func() { p.(phase.Finisher).Done(x) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		if e.asked.PreferName != want || e.recorded != 101 { // AllocsPerRun warms up once
			t.Errorf("%s: prefer_name %v, %d recorded", conf, e.asked.PreferName, e.recorded)
		}
	}
	if _, err := Kind().Build([]byte(`{"prefer_name":`), &env{}); err == nil {
		t.Error("half a configuration was taken")
	}
}

func TestDisabledLabels(t *testing.T) {
	e := &env{metadata: `{"id":"prometheus","disabled_labels":{"http_status":["node","consumer"]}}`}
	if _, err := Kind().Build([]byte(`{}`), e); err != nil {
		t.Fatal(err)
	}
	if got := e.asked.DisabledLabels["http_status"]; !slices.Equal(got, []string{"node", "consumer"}) {
		t.Errorf("disabled: %v", e.asked.DisabledLabels)
	}
	s, err := schema.Compile("prometheus", Kind().MetadataSchema)
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]any{"disabled_labels": map[string]any{"http_status": []any{"code"}}} // it gives the metric its structure
	if err := s.Validate(bad); err == nil || !strings.HasSuffix(err.Error(), "matches none of the enum values") {
		t.Errorf("got %v", err)
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

func FuzzConfig(f *testing.F) {
	f.Add(`{"prefer_name":true}`, `{"disabled_labels":{"http_status":["node"],"http_latency":["route","consumer"]}}`)
	f.Add(`[]`, `{}`)
	f.Add(`{"prefer_name":false,"x":{}}`, ``)
	conf, err := schema.Compile("prometheus", Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	meta, err := schema.Compile("prometheus", Kind().MetadataSchema)
	if err != nil {
		f.Fatal(err)
	}
	passes := func(s *schema.Schema, text string) bool {
		doc, err := schema.DecodeJSON([]byte(text))
		return err == nil && s.Validate(doc) == nil
	}
	f.Fuzz(func(t *testing.T, text, metadata string) {
		if !passes(conf, text) || metadata != "" && !passes(meta, metadata) {
			return
		}
		e := &env{metadata: metadata}
		p, err := Kind().Build([]byte(text), e)
		if err != nil {
			t.Fatalf("%s, %s: %v", text, metadata, err)
		}
		p.(phase.Finisher).Done(&phase.Exchange{})
		if e.recorded != 1 {
			t.Errorf("%d recorded", e.recorded)
		}
	})
}
