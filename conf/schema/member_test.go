package schema_test

import (
	"slices"
	"testing"

	"headgate/conf/schema"
)

func TestMember(t *testing.T) {
	v, err := schema.DecodeJSON([]byte(`{"a":"x","b":true,"c":null,"list":["a",1,"","b"],"empty":[],"object":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	doc := v.(map[string]any)
	for name, want := range map[string]string{"a": "x", "A": "none", "b": "none", "c": "none", "missing": "none"} {
		if got := schema.Member(doc, name, "none"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !schema.Member(doc, "b", false) || schema.Member[map[string]any](nil, "b", nil) != nil {
		t.Error("other types")
	}
	for name, want := range map[string][]string{"list": {"a", "", "b"}, "empty": nil, "object": nil, "a": nil, "missing": nil} {
		if got := schema.Texts(doc, name); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
