package conf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	testKey  = "0123456789abcdef0123456789abcdef"
	otherKey = "fedcba9876543210fedcba9876543210"
)

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func files(pairs ...string) func(string) ([]byte, error) {
	lookup := env(pairs...)
	return func(path string) ([]byte, error) {
		if s, ok := lookup(path); ok {
			return []byte(s), nil
		}
		return nil, os.ErrNotExist
	}
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("x.toml", []byte(text), env("KEY", testKey), files("/run/key", "\n"+otherKey+"\n"))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	return c
}

func TestParseProblems(t *testing.T) {
	f := func(name, text string, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			c, err := Parse("x.toml", []byte(text), env("SHORT", "tiny"), files())
			if err == nil || c != nil {
				t.Fatalf("got config %v and error %v, want an error alone", c, err)
			}
			if got := err.Error(); got != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
		})
	}
	f("syntax", "[gateway]\nlisten = \n", `x.toml:2: not valid TOML: expected value but found '\n' instead`)
	f("syntax does not quote", "[[admin.keys]]\nkey = abcdefghijklmnopqrstuvwxyzabcdefgh\n",
		`x.toml:2: not valid TOML after "admin.keys.key": expected a value; strings need quotes`)
	f("duplicate key", "[store]\npath = 'a'\npath = 'b'\n", `x.toml:3: not valid TOML: Key 'store.path' has already been defined`)
	f("misspelt key", "[gateway]\n\nlissten = [':1']\n", `x.toml:3: gateway.lissten: unknown key, did you mean gateway.listen?`)
	f("misspelt section", "[metric]\nenabled = true\n", `x.toml:1: metric: unknown key, did you mean metrics?`)
	f("other case", "[Gateway]\n", `x.toml:1: Gateway: unknown key, did you mean gateway?`)
	f("key outside its section", "tls_verify = false\n", `x.toml:1: tls_verify: unknown key outside a section, did you mean upstream.tls_verify?`)
	f("APISIX name", "[admin]\nallow_admin = ['::/0']\n", `x.toml:2: admin.allow_admin: unknown key; what APISIX calls allow_admin is admin.allow here`)
	f("unknown key without neighbour", "[control]\nsomething_else = 1\n", `x.toml:2: control.something_else: unknown key; known here: enabled, listen`)
	f("unknown key of an array table", "[[admin.keys]]\nname='a'\nkey='"+testKey+"'\n\nrule = 'viewer'\n",
		`x.toml:5: admin.keys[0].rule: unknown key, did you mean admin.keys[0].role?`)
	f("all at once",
		"[gateway]\nlisten = '0.0.0.0:80'\nmax_headers = '3'\nidle_timeout = 60\nmax_body_size = '64MB'\n[admin]\nenabled = 1\n[[admin.keys]]\nname = 'a'\nkey = '12345'\n",
		`x.toml:2: gateway.listen: expected an array of strings, got a string`,
		`x.toml:3: gateway.max_headers: expected a whole number, got a string`,
		`x.toml:4: gateway.idle_timeout: expected a duration with its unit such as "60s" or "200ms", got a bare number`,
		`x.toml:5: gateway.max_body_size: expected a size such as 16384, "16KiB", "64MiB" or "1GiB", got "64MB"`,
		`x.toml:7: admin.enabled: expected true or false, got a whole number`,
		`x.toml:10: admin.keys[0].key: expected at least 32 characters, got 5`)
	f("trailers", "[gateway]\nrequest_trailers = ['X-Sum', 'X Sum']\nresponse_trailers = ['*', '']\n",
		`x.toml:2: gateway.request_trailers[1]: expected the name of a field such as "Server-Timing", or "*" for all, got "X Sum"`,
		`x.toml:3: gateway.response_trailers[1]: expected the name of a field such as "Server-Timing", or "*" for all, got ""`)
	f("section is no table", "admin = 3\n", `x.toml:1: admin: expected a table [admin], got a whole number`)
	f("keys are no tables", "[admin]\nkeys = ['a']\n", `x.toml:2: admin.keys: expected an array of tables [[admin.keys]], got an array`)
	f("key without anything", "[[admin.keys]]\n",
		`x.toml:1: admin.keys[0].name: expected a name for the log, got none`,
		`x.toml:1: admin.keys[0].key: expected at least 32 characters, got 0`)
	f("key repeated", "[admin]\nkeys = [\n {name='a', key='"+testKey+"'},\n {name='a', key='"+testKey+"', role='root'},\n]\n",
		`x.toml:4: admin.keys[1].role: expected "admin" or "viewer", got "root"`,
		`x.toml:4: admin.keys[1].name: expected a name of its own, "a" is also that of admin.keys[0]`,
		`x.toml:4: admin.keys[1].key: expected a key of its own, this is also the one of admin.keys[0]`)
	f("key with a space", "[[admin.keys]]\nname='a'\nkey='"+testKey+" x'\n",
		`x.toml:3: admin.keys[0].key: expected printable ASCII characters without spaces (the key travels in a header, a query or a cookie)`)
	f("expires as a string", "[[admin.keys]]\nname='a'\nkey='"+testKey+"'\nexpires = '2030-01-01'\n",
		`x.toml:4: admin.keys[0].expires: expected a date such as 2027-01-31 or a date-time such as 2027-01-31T12:00:00Z, without quotes, got a string`)
	f("expires as a time", "[[admin.keys]]\nname='a'\nkey='"+testKey+"'\nexpires = 10:00:00\n",
		`x.toml:4: admin.keys[0].expires: expected a date such as 2027-01-31 or a date-time such as 2027-01-31T12:00:00Z, without quotes, got a time of day`)
	f("environment", "[[admin.keys]]\nname='a'\nkey='${SHORT}'\n[store]\npath = \"${NOPE}/x\"\n[access_log]\npath='${'\n[upstream]\nca_file='${1X}'\n",
		`x.toml:3: admin.keys[0].key: expected at least 32 characters, got 4`,
		`x.toml:5: store.path: environment variable NOPE is not set`,
		`x.toml:7: access_log.path: expected } after ${; write $${ for a literal ${`,
		`x.toml:9: upstream.ca_file: expected ${NAME} or ${NAME:-default} with the name of an environment variable; write $${ for a literal ${`)
	f("missing key file", "[[admin.keys]]\nname='a'\nkey='file:/nope'\n", `x.toml:3: admin.keys[0].key: file does not exist`)
	f("bad listen", "[gateway]\nlisten = [\n ':80',\n 'example.com:80',\n ':70000',\n]\n",
		`x.toml:4: gateway.listen[1]: expected host:port with an IP address, localhost or no host, such as "127.0.0.1:9180" or "[::]:9080", got "example.com:80"`,
		`x.toml:5: gateway.listen[2]: expected host:port with an IP address, localhost or no host, such as "127.0.0.1:9180" or "[::]:9080", got ":70000"`)
	f("listen nowhere", "[gateway]\nlisten = []\n", `x.toml:2: gateway.listen: expected at least one address such as "0.0.0.0:9080"`)
	f("collision with a default", "[gateway]\nlisten = [':9180']\n",
		`x.toml:2: gateway.listen[0]: expected an address of its own, 127.0.0.1:9180 collides with admin.listen`)
	f("collision", "[admin]\nlisten='127.0.0.1:1'\n[control]\nlisten='0.0.0.0:1'\n",
		`x.toml:4: control.listen: expected an address of its own, 0.0.0.0:1 collides with admin.listen`)
	f("ranges", "[admin]\nallow = ['10.0.0.0/33', '::1', 'all']\n",
		`x.toml:2: admin.allow[0]: expected an address range such as "10.0.0.0/8" or an IP address, got "10.0.0.0/33"`,
		`x.toml:2: admin.allow[2]: expected an address range such as "10.0.0.0/8" or an IP address, got "all"`)
	f("allow nobody", "[admin]\nallow = []\n",
		`x.toml:2: admin.allow: expected at least one address range; write ["0.0.0.0/0", "::/0"] to admit everybody`)
	f("values",
		"[gateway]\nrouter='fast'\nmax_header_size=10\nmax_headers=0\nheader_timeout='0s'\nserver_header=\"a\\nb\"\nbody_timeout='-1s'\n[metrics]\npath='metrics'\n[compat]\nmode='x'\napi_version='3'\n[store]\nprovider='zookeeper'\n[access_log]\nformat=''\nflush_interval='0s'\n[upstream]\nkeepalive_requests=0\ndns_refresh='10ms'\n",
		`x.toml:2: gateway.router: expected "radixtree_host_uri" or "radixtree_uri" or "radixtree_uri_with_parameter", got "fast"`,
		`x.toml:3: gateway.max_header_size: expected 1KiB to 1MiB, got 10B`,
		`x.toml:4: gateway.max_headers: expected 1 to 10000, got 0`,
		`x.toml:5: gateway.header_timeout: expected more than 0s, got 0s`,
		`x.toml:6: gateway.server_header: expected a header value of printable ASCII characters, or "" for the upstream's`,
		`x.toml:7: gateway.body_timeout: expected a duration such as "60s" or "200ms", got "-1s"`,
		`x.toml:9: metrics.path: expected a path such as "/metrics", got "metrics"`,
		`x.toml:11: compat.mode: expected "safe" or "apisix", got "x"`,
		`x.toml:12: compat.api_version: expected a version such as "3.18.0", got "3"`,
		`x.toml:14: store.provider: expected "embedded" or "etcd" or "file" or "mem", got "zookeeper"`,
		`x.toml:16: access_log.format: expected a template of one line; the line end is added`,
		`x.toml:17: access_log.flush_interval: expected more than 0s, got 0s`,
		`x.toml:19: upstream.keepalive_requests: expected 1 to 1073741824, got 0`,
		`x.toml:20: upstream.dns_refresh: expected at least 1s, got 10ms`)
	f("name servers",
		"[upstream]\ndns_servers=['10.0.0.2','[fd00::2]:5353','fd00::3','dns.test','10.0.0.2:0','1.1.1.1:53x']\ndns_min_ttl='1ms'\ndns_max_ttl='25h'\ndns_stale='-1s'\nallow_addresses=['169.254.0.0/16','x']\n[discovery.dns]\nservers=['[::1]','']\n",
		`x.toml:2: upstream.dns_servers[3]: expected the address of a name server such as "10.0.0.2" or "127.0.0.1:8600", got "dns.test"`,
		`x.toml:2: upstream.dns_servers[4]: expected the address of a name server such as "10.0.0.2" or "127.0.0.1:8600", got "10.0.0.2:0"`,
		`x.toml:2: upstream.dns_servers[5]: expected the address of a name server such as "10.0.0.2" or "127.0.0.1:8600", got "1.1.1.1:53x"`,
		`x.toml:3: upstream.dns_min_ttl: expected 100ms to 24h0m0s, got 1ms`,
		`x.toml:4: upstream.dns_max_ttl: expected 1ms to 24h0m0s, got 25h0m0s`,
		`x.toml:5: upstream.dns_stale: expected a duration such as "60s" or "200ms", got "-1s"`,
		`x.toml:6: upstream.allow_addresses[1]: expected an address range such as "10.0.0.0/8" or an IP address, got "x"`,
		`x.toml:8: discovery.dns.servers[1]: expected the address of a name server such as "10.0.0.2" or "127.0.0.1:8600", got ""`)
	f("inline resources",
		"[[routes]]\nuri='/a'\n[[routes]]\nid='a'\n[[routes]]\nid='a'\n[[routes]]\nid='a/b'\n[[routes]]\nid = 5\n since = 2020-01-01\n[routes.plugins.x]\nn = inf\n",
		`x.toml:1: routes[0].id: expected an id of 1 to 64 letters, digits, - _ or . (or a positive whole number)`,
		`x.toml:6: routes[2].id: expected an id of its own, "a" is also that of routes[1]`,
		`x.toml:8: routes[3].id: expected an id of 1 to 64 letters, digits, - _ or . (or a positive whole number)`,
		`x.toml:11: routes[4].since: expected a string, number, boolean, array or table, got a date or time; put it in quotes`,
		`x.toml:13: routes[4].plugins.x.n: expected a finite number`)
}

func TestParseValues(t *testing.T) {
	got := mustParse(t, `
[gateway]
listen = ["localhost:0", "[::1]:${PORT:-81}"]
max_header_size = 8192
idle_timeout = "1m30s"
trusted_addresses = ["10.1.2.3/8"]
request_trailers = ["X-Sum", "*"]
response_trailers = []
[admin]
keys = [{name = "a", key = "${KEY}"}, {name = "b", key = "file:/run/${DIR:-key}", role = "viewer"}]
[access_log]
format = "${remote_addr ?? -} $${x}"
[store]
path = "a$${b}c$d"
[[routes]]
id = 7
uri = "/${KEY}"
plugins.x = {list = [{a = 1}, {a = 1.5}], n = "env:${X}"}
`)
	want := Default()
	want.Gateway.Listen = []string{"localhost:0", "[::1]:81"}
	want.Gateway.MaxHeaderSize = 8 * KiB
	want.Gateway.IdleTimeout = Duration(90 * time.Second)
	want.Gateway.TrustedAddresses = []string{"10.1.2.3/8"}
	want.Gateway.RequestTrailers, want.Gateway.ResponseTrailers = []string{"X-Sum", "*"}, []string{}
	want.Admin.Keys = []AdminKey{{Name: "a", Key: testKey, Role: RoleAdmin}, {Name: "b", Key: otherKey, Role: RoleViewer}}
	want.AccessLog.Format = "${remote_addr ?? -} $${x}"
	want.Store.Path = "a${b}c$d"
	want.Routes = []map[string]any{{
		"id":      int64(7),
		"uri":     "/${KEY}",
		"plugins": map[string]any{"x": map[string]any{"list": []any{map[string]any{"a": int64(1)}, map[string]any{"a": 1.5}}, "n": "env:${X}"}},
	}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

// An environment variable decides about a value, never about which file is read.
func TestEnvironmentCannotNameAFile(t *testing.T) {
	content := "file:/run/key-with-enough-characters-in-its-name"
	c, err := Parse("x", []byte("[[admin.keys]]\nname='a'\nkey='${K}'\n"), env("K", content), files())
	if err != nil || c.Admin.Keys[0].Key.Reveal() != content {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestExpires(t *testing.T) {
	f := func(text string, want time.Time) {
		t.Helper()
		c := mustParse(t, "[[admin.keys]]\nname='a'\nkey='"+testKey+"'\nexpires="+text)
		k := c.Admin.Keys[0]
		if !k.Expires.Equal(want) {
			t.Errorf("%s: got %v, want %v", text, k.Expires, want)
		}
		if k.Expired(want.Add(-1)) || !k.Expired(want) {
			t.Errorf("%s: the key must work until just before %v", text, want)
		}
	}
	f("2030-12-31", time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
	f("2030-01-31T10:20:30", time.Date(2030, 1, 31, 10, 20, 30, 0, time.UTC))
	f("2030-01-31T10:20:30Z", time.Date(2030, 1, 31, 10, 20, 30, 0, time.UTC))
	f("2030-01-31T10:20:30+02:00", time.Date(2030, 1, 31, 8, 20, 30, 0, time.UTC))
}

// A document called "." or ".." would be out of reach for the Admin API.
func TestDotIDs(t *testing.T) {
	_, err := Parse("x.toml", []byte("[[routes]]\nid='.'\n[[services]]\nuri='/'\nid='..'\n[[upstreams]]\nid='...'\n"), env(), files())
	want := `x.toml:2: routes[0].id: expected an id other than "." and "..", which no URL can name` + "\n" +
		`x.toml:5: services[0].id: expected an id other than "." and "..", which no URL can name`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestEmptyFileIsDefault(t *testing.T) {
	for _, text := range []string{"", "\ufeff# nothing\r\n", "[gateway]\n[admin]\n"} {
		if diff := cmp.Diff(Default(), mustParse(t, text), cmpopts.IgnoreUnexported(Config{})); diff != "" {
			t.Errorf("%q is not the default:\n%s", text, diff)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "h.toml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	key := filepath.Join(dir, "key")
	t.Setenv("HEADGATE_TEST_DIR", dir)
	write(path, "[[admin.keys]]\nname='a'\nkey='file:${HEADGATE_TEST_DIR}/key'\n", 0o644)

	write(key, testKey+"\n", 0o600)
	c, err := Load(path)
	if err != nil || c.Admin.Keys[0].Key.Reveal() != testKey {
		t.Fatalf("got %v, %v", c, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		write(key, testKey, mode)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "h.toml:3: admin.keys[0].key: "+key+": mode") || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: got %v", mode, err)
		}
	}
	write(key, strings.Repeat("x", int(maxSecretFile)+1), 0o600)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "at most 64KiB") {
		t.Errorf("huge key file: got %v", err)
	}
	write(path, strings.Repeat("#", int(maxFileSize)+1), 0o600)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "at most 16MiB") {
		t.Errorf("huge file: got %v", err)
	}
}

// At must find the lines of keys that other rooms check.
func TestAt(t *testing.T) {
	c := mustParse(t, "\n[[routes]]\nid='a'\n[routes.plugins.key-auth]\n  header = 'x'\n[[routes]]\nid='b'\nuris=[\n'/a',\n'/b']\n")
	for key, want := range map[string]int{
		"routes[0].plugins.key-auth.header": 5,
		"routes[0].plugins.key-auth.nope":   4,
		"routes[1].uris[1]":                 10,
		"routes[1].upstream.nodes[3].host":  6,
		"gateway.listen":                    1,
	} {
		p := c.At(key, "no")
		if p.Line != want || p.File != "x.toml" {
			t.Errorf("%s: got %s:%d, want line %d", key, p.File, p.Line, want)
		}
	}
	if p := Default().At("gateway.listen", "no"); p.Error() != ": gateway.listen: no" {
		t.Errorf("without a file: got %q", p.Error())
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[gateway]\nlisten = ['a']\nx = 1\n")
	f.Add("[[admin.keys]]\nkey = '${A:-b}'\nname = \"\"\"\na\\\"\"\"\"\n[admin.keys.x]\n'a.b'.\"c\\\"\" = {d = [1, {e = 2}]}\n")
	f.Add("routes = [{id = 1, \"a b\" = inf}, {id = [2020-01-01]}]\n[x\n")
	f.Add("\xef\xbb\xbfa.b.c = '''x''''\r\n#c\n[[a]]\n[[a.b]]\n[a.b.c]\nd=1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f.toml", []byte(text), env("A", "x"), files("x", testKey))
		if err == nil {
			_ = c.String()
			return
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) == 0 || c != nil {
			t.Fatalf("got %T %v with config %v, want Problems alone", err, err, c)
		}
		last := 1 + strings.Count(text, "\n")
		for _, p := range ps {
			if p.Line < 1 || p.Line > last+1 || p.Msg == "" {
				t.Fatalf("%q: problem without a place or text: %#v", text, p)
			}
		}
	})
}
