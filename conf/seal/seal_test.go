package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"headgate/conf/schema"
)

// The keyring that APISIX is delivered with; what is sealed under it was recorded from a running one.
var defaultKeyring = []string{"qeddd145sfvddff3", "edd1c9f0985e76a2"}

func fields(plugin string) (route, consumer []string) {
	switch plugin {
	case "key-auth":
		return nil, []string{"key"}
	case "basic-auth":
		return nil, []string{"password"}
	case "jwt-auth":
		return []string{}, []string{"secret"}
	case "limit-count":
		return []string{"redis_password", "sentinel_password"}, nil
	case "ai-proxy-multi":
		return []string{"instances.auth.header", "instances.auth.gcp.service_account_json"}, nil
	case "error-log-logger":
		return []string{"clickhouse.password"}, nil
	}
	return nil, nil
}

func newSealer(t testing.TB, keyring ...string) *Sealer {
	t.Helper()
	s, err := New(keyring, fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	v, err := schema.DecodeJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v.(map[string]any)
}

func TestKeyring(t *testing.T) {
	f := func(want string, keyring ...string) {
		t.Helper()
		if _, err := New(keyring, fields); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	f("the keyring is empty")
	f("keyring[0]: a key has 16 bytes, this one has 0", "")
	f("keyring[1]: a key has 16 bytes, this one has 17", defaultKeyring[0], "qeddd145sfvddff3x")
}

func TestText(t *testing.T) {
	s := newSealer(t, defaultKeyring...)
	f := func(clear, sealed string) {
		t.Helper()
		if got := s.SealText(clear); got != sealed {
			t.Errorf("%q: got %s, want %s", clear, got, sealed)
		}
		if got, ok := s.OpenText(sealed); !ok || got != clear {
			t.Errorf("%s: got %q, %v, want %q", sealed, got, ok, clear)
		}
	}
	f("auth-one", "4y+JvURBE6ZwRbbgaryrhg==") // recorded
	f("secret", "COpyH5JDkbewEUE9BOa3Fw==")   // recorded
	for n := range 50 {
		clear := strings.Repeat("é", n)
		if got, ok := s.OpenText(s.SealText(clear)); !ok || got != clear {
			t.Errorf("%q came back as %q, %v", clear, got, ok)
		}
	}
	// Any key opens; one that is not in the keyring does not.
	second := newSealer(t, defaultKeyring[1]).SealText("auth-one")
	f2 := func(s *Sealer, want bool) {
		t.Helper()
		if got, ok := s.OpenText(second); ok != want || ok && got != "auth-one" {
			t.Errorf("got %q, %v, want %v", got, ok, want)
		}
	}
	f2(s, true)
	f2(newSealer(t, "0123456789abcdef", "fedcba9876543210"), false)
	for _, clear := range []string{"", "auth-one", "dGVzdA==", "4y+JvURBE6ZwRbbgaryrhg=", "4y+JvURBE6ZwRbbgaryrhh==", strings.Repeat("A", 64), "4y+JvURBE6ZwRbbgaryr\n=="} {
		if got, ok := s.OpenText(clear); ok {
			t.Errorf("%q was never sealed and opened to %q", clear, got)
		}
	}
}

const pem = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"

// TestDocuments: which fields of which documents are secrets. <x> in a document stands for the sealed form of x.
func TestDocuments(t *testing.T) {
	s := newSealer(t, defaultKeyring...)
	f := func(key, clear, sealed string) {
		t.Helper()
		p, _ := json.Marshal(pem)
		clear, sealed = strings.ReplaceAll(clear, `"PEM"`, string(p)), strings.ReplaceAll(sealed, `<PEM>`, s.SealText(pem))
		for _, text := range []string{"one", "two", "three"} {
			sealed = strings.ReplaceAll(sealed, "<"+text+">", s.SealText(text))
		}
		doc := decode(t, clear)
		if err := s.Seal(key, doc); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if diff := cmp.Diff(decode(t, sealed), doc); diff != "" {
			t.Errorf("%s sealed:\n%s", key, diff)
		}
		if opened := s.Open(key, doc); opened != (clear != sealed) {
			t.Errorf("%s: Open reports %v", key, opened)
		}
		if diff := cmp.Diff(decode(t, clear), doc); diff != "" {
			t.Errorf("%s opened:\n%s", key, diff)
		}
		// The textual forms agree with the others, and leave alone what has nothing to seal.
		raw, err := s.SealDocument(key, []byte(clear))
		if diff := cmp.Diff(decode(t, sealed), decode(t, string(raw))); diff != "" || err != nil {
			t.Errorf("SealDocument %s: %v\n%s", key, err, diff)
		}
		if clear == sealed && string(raw) != clear {
			t.Errorf("SealDocument %s rewrote %s to %s", key, clear, raw)
		}
		if diff := cmp.Diff(decode(t, clear), decode(t, string(s.OpenDocument(key, raw)))); diff != "" {
			t.Errorf("OpenDocument %s:\n%s", key, diff)
		}
		if got := s.OpenDocument(key, []byte(clear)); string(got) != clear {
			t.Errorf("OpenDocument %s rewrote clear text to %s", key, got)
		}
	}
	same := func(key, doc string) { t.Helper(); f(key, doc, doc) }

	// Consumers have lists of their own, with the route's list for plugins that make no difference.
	f("consumers/jack", `{"plugins":{"key-auth":{"key":"one"},"limit-count":{"redis_password":"two"}}}`,
		`{"plugins":{"key-auth":{"key":"<one>"},"limit-count":{"redis_password":"<two>"}}}`)
	f("consumers/jack/credentials/a", `{"plugins":{"basic-auth":{"username":"u","password":"one"}}}`,
		`{"plugins":{"basic-auth":{"username":"u","password":"<one>"}}}`)
	same("routes/1", `{"plugins": {"key-auth":{"key":"one"}, "jwt-auth":{"secret":"one"}}}`)
	for _, key := range []string{"routes/1", "services/1", "plugin_configs/1", "consumer_groups/1", "global_rules/1"} {
		f(key, `{"id":"1","n":1.50,"plugins":{"limit-count":{"redis_password":"one","sentinel_password":"two","count":10}}}`,
			`{"id":"1","n":1.50,"plugins":{"limit-count":{"redis_password":"<one>","sentinel_password":"<two>","count":10}}}`)
	}
	f("plugin_metadata/error-log-logger", `{"clickhouse":{"password":"one","user":"u"}}`, `{"clickhouse":{"password":"<one>","user":"u"}}`)

	// Paths through arrays, and objects of secrets at their end.
	f("routes/1", `{"plugins":{"ai-proxy-multi":{"instances":[{"name":"a","auth":{"header":{"Authorization":"one","X":"two"}}},
		{"auth":{"header":["three"],"gcp":{"service_account_json":"one"}}},{"auth":{}},{"auth":7},7]}}}`,
		`{"plugins":{"ai-proxy-multi":{"instances":[{"name":"a","auth":{"header":{"Authorization":"<one>","X":"<two>"}}},
		{"auth":{"header":["<three>"],"gcp":{"service_account_json":"<one>"}}},{"auth":{}},{"auth":7},7]}}}`)

	// Private keys.
	f("ssls/1", `{"cert":"PEM","key":"PEM","keys":["PEM","PEM"]}`, strings.ReplaceAll(
		`{"cert":"CERT","key":"<PEM>","keys":["<PEM>","<PEM>"]}`, `"CERT"`, func() string { p, _ := json.Marshal(pem); return string(p) }()))
	f("upstreams/1", `{"tls":{"client_key":"PEM"}}`, `{"tls":{"client_key":"<PEM>"}}`)
	f("routes/1", `{"upstream":{"tls":{"client_key":"PEM"}}}`, `{"upstream":{"tls":{"client_key":"<PEM>"}}}`)
	f("services/1", `{"upstream":{"tls":{"client_key":"PEM"}},"plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"weight":1},
		{"upstream":{"tls":{"client_key":"PEM"}}}]}]}}}`,
		`{"upstream":{"tls":{"client_key":"<PEM>"}},"plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[{"weight":1},
		{"upstream":{"tls":{"client_key":"<PEM>"}}}]}]}}}`)
	f("routes/1", `{"plugins":{"traffic-split":{"rules":[{"weight":1,"upstream":{"tls":{"client_key":"PEM"}}},{"weight":1}]}}}`,
		`{"plugins":{"traffic-split":{"rules":[{"weight":1,"upstream":{"tls":{"client_key":"<PEM>"}}},{"weight":1}]}}}`)
	same("upstreams/1", `{"upstream": {"tls":{"client_key":"one"}}, "plugins":{"limit-count":{"redis_password":"one"}}}`)

	// What stays.
	same("consumers/jack", `{"plugins": {"key-auth":{"key":"$secret://vault/1/jack/key"}, "basic-auth":{"password":"$ENV://PASSWORD"}}}`)
	same("ssls/1", `{"key": "$secret://vault/1/ssl/key"}`)
	same("consumers/jack", `{"plugins": {"key-auth":{"key":17}, "basic-auth":{"password":null}, "jwt-auth":"x"}}`)
	same("routes/1", `{"plugins": [], "upstream": "x"}`)
	same("secrets/vault/1", `{"token": "one", "plugins":{"limit-count":{"redis_password":"one"}}}`)
	same("protos/1", `{"key": "---one"}`)
}

// A name written with escapes is the same name.
func TestEscapedName(t *testing.T) {
	s := newSealer(t, defaultKeyring...)
	got, err := s.SealDocument("consumers/jack", []byte(`{"plugins":{"key\u002dauth":{"\u006bey":"auth-one"}}}`))
	if want := `{"plugins":{"key-auth":{"key":"4y+JvURBE6ZwRbbgaryrhg=="}}}`; string(got) != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// A private key that is sealed already is kept, and refused when nobody could open it.
func TestPrivateKeySealedAlready(t *testing.T) {
	s := newSealer(t, defaultKeyring...)
	sealed := newSealer(t, defaultKeyring[1]).SealText(pem)
	doc := map[string]any{"key": sealed, "keys": []any{sealed}}
	if err := s.Seal("ssls/1", doc); err != nil || doc["key"] != sealed {
		t.Errorf("got %v, %v", doc["key"], err)
	}
	if s.Open("ssls/1", doc); doc["key"] != pem {
		t.Errorf("opened: %v", doc["key"])
	}
	for _, doc := range []map[string]any{
		{"key": pem, "keys": []any{pem, "neither"}},
		{"key": newSealer(t, "0123456789abcdef").SealText(pem)},
	} {
		before := fmt.Sprint(doc)
		if err := s.Seal("ssls/1", doc); !errors.Is(err, ErrForeign) || !strings.HasPrefix(err.Error(), "ssls/1: ") {
			t.Errorf("got %v, want ErrForeign", err)
		}
		if fmt.Sprint(doc) != before {
			t.Error("a refused document was changed")
		}
	}
	if got, err := s.SealDocument("upstreams/1", []byte(`{"tls":{"client_key":"x"}}`)); !errors.Is(err, ErrForeign) {
		t.Errorf("got %s, %v, want ErrForeign", got, err)
	}
}

// Whatever is stored, opening it neither panics nor makes something that cannot be sealed and opened again to the same.
func FuzzDocument(f *testing.F) {
	f.Add("consumers/jack", `{"plugins":{"key-auth":{"key":"4y+JvURBE6ZwRbbgaryrhg=="}}}`)
	f.Add("ssls/1", `{"key":"---","keys":["COpyH5JDkbewEUE9BOa3Fw==",{"a":"b"}]}`)
	f.Add("routes/1", `{"plugins":{"ai-proxy-multi":{"instances":[{"auth":{"header":{"A":"b"}}}]}},"a\"b":{}}`)
	s := newSealer(f, defaultKeyring...)
	f.Fuzz(func(t *testing.T, key, text string) {
		opened := s.OpenDocument(key, []byte(text))
		sealed, err := s.SealDocument(key, opened)
		if err != nil {
			return
		}
		again := s.OpenDocument(key, sealed)
		want, errWant := schema.DecodeJSON(opened)
		got, errGot := schema.DecodeJSON(again)
		if diff := cmp.Diff(want, got); diff != "" || (errWant == nil) != (errGot == nil) {
			t.Errorf("%s: %s became %s:\n%s", key, opened, again, diff)
		}
	})
}

func BenchmarkOpenDocument(b *testing.B) {
	s := newSealer(b, defaultKeyring...)
	f := func(name, key, text string) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.OpenDocument(key, []byte(text))
			}
		})
	}
	f("nothing", "routes/1", `{"id":"1","uri":"/a/*","hosts":["a.example"],"plugins":{"proxy-rewrite":{"uri":"/b"},"cors":{}},"upstream":{"nodes":{"127.0.0.1:80":1}}}`)
	f("secret", "consumers/jack", `{"plugins":{"key-auth":{"key":"4y+JvURBE6ZwRbbgaryrhg=="}},"username":"jack"}`)
}
