package catalog

import (
	"encoding/json"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/phase"
)

// own has one plugin, and one that is stored and not run.
type own struct{}

func (own) Names() []string { return []string{"own", "batch-requests"} }

func (own) Kind(name string) (phase.Kind, bool) {
	if name != "own" {
		return phase.Kind{}, false
	}
	return phase.Kind{
		Name: "own", Priority: -3, Schema: []byte(`{"type":"object","properties":{"upstream":{"$ref":"upstream.json"}}}`),
		Consumer:       &phase.ConsumerKind{Schema: []byte(`{"required":["key"]}`)},
		MetadataSchema: []byte(`{"properties":{"a":{"default":1},"b":{"default":"x"},"c":{}}}`),
	}, true
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := resource.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFacts(t *testing.T) {
	var facts map[string]struct {
		Version, Type  string
		Priority       int
		Schema         struct{ Properties map[string]map[string]any }
		ConsumerSchema map[string]any `json:"consumer_schema"`
		MetadataSchema map[string]any `json:"metadata_schema"`
	}
	if err := json.Unmarshal([]byte(text(t, Facts(own{}))), &facts); err != nil {
		t.Fatal(err)
	}
	f := facts["own"]
	if f.Version == "" || f.Type != "auth" || f.Priority != -3 || f.ConsumerSchema["required"] == nil || f.MetadataSchema["properties"] == nil {
		t.Errorf("own: %+v", f)
	}
	if f.Schema.Properties["_meta"] == nil || f.Schema.Properties["upstream"]["properties"] == nil {
		t.Errorf("the schema does not stand for itself: %v", f.Schema)
	}
	if f := facts["batch-requests"]; f.Priority != 4010 || f.Type != "" || f.ConsumerSchema != nil || f.MetadataSchema != nil {
		t.Errorf("inert: %+v", f)
	}
	if got := text(t, Facts(nil)); got != "{}" {
		t.Errorf("without plugins: %s", got)
	}
	if !Has(own{}, "own") || !Has(own{}, "batch-requests") || Has(own{}, "cors") || Has(nil, "own") {
		t.Error("Has")
	}
}

func TestDocuments(t *testing.T) {
	for _, name := range []string{"route", "service", "upstream", "consumer", "consumer_group", "plugin_config", "global_rule", "proto", "ssl", "stream_route"} {
		if main := Main()[name]; main == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if doc, ok := Document("credential"); !ok || text(t, doc) == "{}" {
		t.Error("credential")
	}
	for _, name := range []string{"routes", "secret", "plugin_metadata", ""} {
		if _, ok := Document(name); ok {
			t.Errorf("%s is no name of a schema", name)
		}
	}
}

func TestMetadataDefaults(t *testing.T) {
	doc := map[string]any{"a": 7}
	if got := text(t, Metadata(own{}, "own", doc)); got != `{"a":7,"b":"x"}` {
		t.Errorf("own: %s", got)
	}
	if got := text(t, Metadata(nil, "http-logger", map[string]any{})); got != `{"max_pending_entries":8192}` {
		t.Errorf("a logger that is not here: %s", got)
	}
	if got := text(t, Metadata(own{}, "cors", map[string]any{"x": 1})); got != `{"x":1}` {
		t.Errorf("no schema: %s", got)
	}
}
