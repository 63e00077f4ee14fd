package snapshot

import (
	"reflect"
	"strings"
	"testing"
)

func TestReferences(t *testing.T) {
	env := map[string]string{"KEY": "value", "JSON": `{"a":"inner","n":7,"o":{}}`, "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for in, want := range map[string]string{
		"plain": "plain", "$env://KEY": "value", "$ENV://KEY": "value", "$env://JSON/a": "inner", "$env://JSON/n": "7", "$env://EMPTY": "",
		"https://KEY": "https://KEY", "x$env://KEY": "x$env://KEY",
	} {
		conf := map[string]any{"key": in, "list": []any{in, true}}
		got, err := resolved(conf, lookup)
		if err != nil || !reflect.DeepEqual(got, map[string]any{"key": want, "list": []any{want, true}}) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
		if conf["key"] != in {
			t.Errorf("%s: the document was changed", in)
		}
	}
	for in, want := range map[string]string{
		"$env://NONE": "NONE is not set", "$env://JSON/none": "no member none", "$env://JSON/o": "no member o", "$env://KEY/a": "expected a JSON object",
		"$secret://vault/1/a": "secret managers are not resolved",
	} {
		if _, err := resolved(map[string]any{"key": in}, lookup); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "value") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// A consumer is found by what its reference stands for, and a document whose reference leads nowhere is refused.
func TestConsumerWithAReference(t *testing.T) {
	t.Setenv("HEADGATE_TEST_KEY", "from the environment")
	r := newRig(t)
	r.put("consumers/a", `{"username":"a","plugins":{"auth":{"key":"$env://HEADGATE_TEST_KEY"}}}`)
	if r.who("from the environment") != "a" || r.who("$env://HEADGATE_TEST_KEY") != "" {
		t.Error("the reference was not resolved")
	}
	r.refuse("is not set", "consumers/b", `{"username":"b","plugins":{"auth":{"key":"$env://HEADGATE_TEST_NONE"}}}`)
	r.refuse("not resolved", "routes/1", `{"uri":"/x","plugins":{"low":{"id":"$secret://vault/1/a"}}}`)
}
