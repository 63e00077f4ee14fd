package conf

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const everyKind = `
[[upstreams]]
id = 1
[[services]]
id = "s"
[[routes]]
id = "r"
[[routes]]
id = "r2"
[[consumer_groups]]
id = "g"
[[consumers]]
username = "jack"
[[credentials]]
consumer = "jack"
id = "c1"
plugins.key-auth.key = "k"
[[plugin_configs]]
id = "p"
[[global_rules]]
id = "gr"
[[plugin_metadata]]
id = "http-logger"
[[ssls]]
id = "t"
[[secrets]]
id = "vault/1"
[[protos]]
id = "pb"
`

func TestDocuments(t *testing.T) {
	c := mustParse(t, everyKind)
	want := map[string]map[string]any{
		"upstreams/1": {"id": int64(1)}, "services/s": {"id": "s"}, "routes/r": {"id": "r"}, "routes/r2": {"id": "r2"},
		"consumer_groups/g": {"id": "g"}, "consumers/jack": {"username": "jack"},
		"consumers/jack/credentials/c1": {"id": "c1", "plugins": map[string]any{"key-auth": map[string]any{"key": "k"}}},
		"plugin_configs/p":              {"id": "p"}, "global_rules/gr": {"id": "gr"}, "plugin_metadata/http-logger": {"id": "http-logger"},
		"ssls/t": {"id": "t"}, "secrets/vault/1": {"id": "vault/1"}, "protos/pb": {"id": "pb"},
	}
	if diff := cmp.Diff(want, c.Documents()); diff != "" {
		t.Error(diff)
	}
	if c.Credentials[0]["consumer"] != "jack" {
		t.Error("Documents changed the Config")
	}
	for key, line := range map[string]int{"routes/r2": 8, "consumers/jack/credentials/c1": 14, "secrets/vault/1": 26} {
		at, ok := c.DocumentAt(key)
		if p := c.At(at, "x"); !ok || p.Line != line {
			t.Errorf("%s: got %q at line %d, want line %d", key, at, p.Line, line)
		}
	}
	if at, ok := c.DocumentAt("routes/nope"); ok || at != "" {
		t.Errorf("got %q for a document that is not there", at)
	}
	if docs := Default().Documents(); len(docs) != 0 {
		t.Errorf("got %v without resources", docs)
	}
}

func TestDocumentProblems(t *testing.T) {
	f := func(name, text, want string) {
		t.Helper()
		_, err := Parse("x.toml", []byte(text), nil, nil)
		if err == nil || err.Error() != want {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, want)
		}
	}
	const badName = "expected the name of a consumer: 1 to 256 letters, digits, - or _"
	const badSecret = `expected an id of manager and name such as "vault/1"`
	f("consumer", "[[consumers]]\nid = 'jack'\n", "x.toml:1: consumers[0].username: "+badName)
	f("consumer with a dot", "[[consumers]]\nusername = 'a.b'\n", "x.toml:2: consumers[0].username: "+badName)
	f("consumer twice", "[[consumers]]\nusername = 'a'\n[[consumers]]\nusername = 'a'\n", `x.toml:4: consumers[1].username: expected a username of its own, "a" is also that of consumers[0]`)
	f("credential of nobody", "[[credentials]]\nid = 'c'\n", "x.toml:1: credentials[0].consumer: "+badName)
	f("credential without id", "[[credentials]]\nconsumer = 'a'\n", "x.toml:1: credentials[0].id: expected an id of 1 to 64 letters, digits, - _ or . (or a positive whole number)")
	f("credential twice", "[[credentials]]\nconsumer = 'a'\nid = 'c'\n[[credentials]]\nconsumer = 'b'\nid = 'c'\n[[credentials]]\nconsumer = 'a'\nid = 'c'\n",
		`x.toml:9: credentials[2].id: expected an id of its own, "c" is also that of credentials[0]`)
	f("secret", "[[secrets]]\nid = 'vault'\n", "x.toml:2: secrets[0].id: "+badSecret)
	f("secret below dots", "[[secrets]]\nid = '../x'\n", "x.toml:2: secrets[0].id: "+badSecret)
	f("secret of three parts", "[[secrets]]\nid = 'vault/a/b'\n", "x.toml:2: secrets[0].id: "+badSecret)
	f("number and text", "[[routes]]\nid = 1\n[[routes]]\nid = '1'\n", `x.toml:4: routes[1].id: expected an id of its own, "1" is also that of routes[0]`)
	f("no array", "[routes]\nid = 1\n", "x.toml:1: routes: expected an array of tables [[routes]], got a table")
}

func TestNewDocumentError(t *testing.T) {
	key, doc, err := NewDocument("routes", map[string]any{"id": "a b"})
	var wrong *IdentityError
	if key != "" || doc != nil || !errors.As(err, &wrong) || wrong.Field != "id" {
		t.Errorf("got %q, %v, %v", key, doc, err)
	}
}
