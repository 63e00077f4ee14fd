package apisix

import (
	"encoding/json"
	"strings"
	"testing"

	"headgate/conf"
	"headgate/conf/schema"
)

// What the reader takes is a document that the stores can hold, and it says the same when it is read again as JSON, which is YAML too.
func FuzzDecodeYAML(f *testing.F) {
	for _, s := range []string{
		"", "a: 1\n", "a: &x {b: [1, 1.5, ~, true]}\nc:\n  <<: *x\n", "- a\n", "a: |\n  x\n", "a: \"\\u00e9\"\nb: 'it''s'\n", "? a\n: b\n", "!!str a: !!int 1\n",
		"a: ${{X:=1}}\n", "---\na: 0x10\n...\n", "a:\n- - - b\n  - c\n", "{a: [}\n", "a: 1\na: 2\n", "a: *b\n", "a: 1e5\nb: .5\nc: -.0\nd: +1\n", resourcesYAML,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tree, err := DecodeYAML("x", []byte(text), nil)
		if err != nil {
			if tree != nil || err.Error() == "" {
				t.Fatalf("got %v with error %q", tree, err)
			}
			return
		}
		raw, err := json.Marshal(tree.Root)
		if err != nil {
			t.Fatalf("not JSON: %v", err)
		}
		if _, err := schema.DecodeJSON(raw); err != nil && !strings.Contains(err.Error(), "number") {
			t.Fatalf("stores refuse %s: %v", raw, err)
		}
		again, err := DecodeYAML("x", raw, nil)
		if err != nil {
			t.Fatalf("%s cannot be read again: %v", raw, err)
		}
		if second, err := json.Marshal(again.Root); err != nil || string(second) != string(raw) {
			t.Fatalf("got %s, then %s (%v)", raw, second, err)
		}
	})
}

// Whatever is imported, the result is a configuration.
func FuzzImport(f *testing.F) {
	f.Add("apisix: {node_listen: 80}\n", "routes: [{uri: /a}]\n#END")
	f.Add("deployment: {admin: {admin_key: [{key: \"${{A:=b}}\"}]}}\n", resourcesYAML)
	f.Add("nginx_config: {http: {send_timeout: 1h 5s, access_log_format: '$x ${y}'}}\n", "consumers: [{id: a/credentials/b, x: [[{}]]}]\n#END\n")
	f.Add("deployment: {etcd: {host: [a], prefix: /x/, tls: {sni: \"\x7f\"}}, role: x}\napisix: {trusted_addresses: [1]}\n", "#END\n")
	f.Fuzz(func(t *testing.T, config, resources string) {
		text, _, err := Import([]byte(config), []byte(resources))
		if err != nil || strings.Contains(config, "${{") {
			return
		}
		if _, err := conf.Parse("x", text, nil, nil); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}
