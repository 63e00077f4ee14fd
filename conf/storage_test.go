package conf

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStoreProblems(t *testing.T) {
	f := func(name, text string, want ...string) {
		t.Helper()
		_, err := Parse("x.toml", []byte(text), nil, nil)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	const badURL = `expected a URL such as "http://127.0.0.1:2379" of scheme http or https, without user and path`
	f("etcd", "store.provider = 'etcd'\n[store.etcd]\nendpoints = ['https://a:1', 'https://b:1']\nuser = 'u'\npassword = 'p'\ntls_cert = 'c'\ntls_key = 'k'\ntls_ca = 'a'\ntls_server_name = 'n'\n")
	f("endpoints", "[store.etcd]\nendpoints = [\n'127.0.0.1:2379',\n'http://u:secret@a',\n'http://a/x',\n'http://a?x',\n'http://ok:1']\n",
		"x.toml:3: store.etcd.endpoints[0]: "+badURL, "x.toml:4: store.etcd.endpoints[1]: "+badURL,
		"x.toml:5: store.etcd.endpoints[2]: "+badURL, "x.toml:6: store.etcd.endpoints[3]: "+badURL)
	f("no endpoint", "[store.etcd]\nendpoints = []\n", `x.toml:2: store.etcd.endpoints: expected at least one URL such as "http://127.0.0.1:2379"`)
	f("both schemes", "[store.etcd]\nendpoints = ['http://a:1', 'https://b:1']\n", "x.toml:2: store.etcd.endpoints: expected http or https for all endpoints, got both")
	f("prefix", "[store.etcd]\nprefix = '/a/'\n", `x.toml:2: store.etcd.prefix: expected a prefix such as "/apisix", without a slash at its end, got "/a/"`)
	f("halves", "[store.etcd]\nendpoints = ['https://a:1']\nuser = 'u'\ntls_key = 'k'\n",
		"x.toml:3: store.etcd.user: expected store.etcd.password with it", "x.toml:4: store.etcd.tls_key: expected store.etcd.tls_cert with it")
	f("TLS without https", "[store.etcd]\ntls_ca = 'ca.pem'\n", "x.toml:2: store.etcd.tls_ca: expected https endpoints with it; TLS is not used with http")
	f("numbers", "[store.etcd]\ntimeout = '0s'\nstartup_retry = -1\n[store.file]\ninterval = '0s'\n",
		"x.toml:2: store.etcd.timeout: expected more than 0s, got 0s", "x.toml:3: store.etcd.startup_retry: expected 0 to 1000, got -1",
		"x.toml:5: store.file.interval: expected more than 0s, got 0s")
	f("file", "[store]\nprovider = 'file'\n[store.file]\npath = 'a.yml'\n")
	f("no file", "[store]\nprovider = 'file'\n", "x.toml:1: store.file.path: expected the path of a file that ends in .toml, .yaml or .yml")
	f("other file", "[store.file]\npath = 'a.json'\n", `x.toml:2: store.file.path: expected the path of a file that ends in .toml, .yaml or .yml, got "a.json"`)
	f("keyring", "[store.encryption]\nkeyring = [\n'0123456789abcdef',\n'short',\n'0123456789abcdef',\n5]\n",
		"x.toml:4: store.encryption.keyring[1]: expected 16 characters, got 5",
		"x.toml:5: store.encryption.keyring[2]: expected a key of its own, this is also store.encryption.keyring[0]",
		"x.toml:6: store.encryption.keyring[3]: expected a string, got a whole number")
	f("misspelt", "[store.etcd]\nendpoint = []\n", "x.toml:2: store.etcd.endpoint: unknown key, did you mean store.etcd.endpoints?")
	f("others", "[compat]\naccept_inert = ['ok', 'not ok']\nresponse_charset = 'yes'\n[audit]\npath = ''\n[admin]\nmax_configs_size = 1\n[gateway]\nmax_post_args_size = 0\n",
		`x.toml:2: compat.accept_inert[1]: expected the name of a plugin such as "opentelemetry", got "not ok"`,
		"x.toml:3: compat.response_charset: expected true or false, got a string",
		`x.toml:5: audit.path: expected "stderr", "off" or the path of a file`,
		"x.toml:7: admin.max_configs_size: expected 1536KiB to 16GiB, got 1B",
		"x.toml:9: gateway.max_post_args_size: expected 1KiB to 16GiB, got 0B")
	f("status collides", "[status]\nenabled = true\nlisten = '127.0.0.1:9091'\n", "x.toml:3: status.listen: expected an address of its own, 127.0.0.1:9091 collides with metrics.listen")
	f("status is off", "[status]\nlisten = '127.0.0.1:9091'\n")
}

func TestKeyring(t *testing.T) {
	const own = "[store.encryption]\nkeyring = ['0123456789abcdef', 'file:/run/ring']\n"
	parse := func(text string) *Config {
		c, err := Parse("x.toml", []byte(text), nil, files("/run/ring", "fedcba9876543210\n"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	published := []string{"qeddd145sfvddff3", "edd1c9f0985e76a2"}
	for text, want := range map[string][]string{
		"":                         {},
		"compat.mode = 'apisix'\n": published,
		"[store]\nprovider='etcd'": published,
		"[compat]\nmode = 'apisix'\n[store]\nprovider='etcd'":         published,
		"[compat]\nmode = 'apisix'\n[store]\nprovider='etcd'\n" + own: {"0123456789abcdef", "fedcba9876543210"},
		own: {"0123456789abcdef", "fedcba9876543210"},
	} {
		c := parse(text)
		if got := c.Keyring(); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		warned := strings.Contains(strings.Join(c.Warnings(time.Now()), "\n"), "printed in APISIX's source")
		if warned != slices.Equal(want, published) {
			t.Errorf("%q: got warnings %q", text, c.Warnings(time.Now()))
		}
		for _, key := range want {
			if strings.Contains(c.String(), key) {
				t.Errorf("a key of the keyring is shown:\n%s", c)
			}
		}
	}
}

func TestStoreWarnings(t *testing.T) {
	f := func(name, text string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, mustParse(t, text).Warnings(time.Now())); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	f("unverified etcd", "[store]\nprovider='etcd'\n[store.etcd]\nendpoints=['https://e:1']\ntls_verify=false\n[store.encryption]\nkeyring=['0123456789abcdef']",
		"store.etcd.tls_verify is false: whoever sits between the gateway and etcd can read and change the configuration")
	f("open password", "[store]\nprovider='etcd'\n[store.etcd]\nendpoints=['http://127.0.0.1:1', 'http://e:1']\nuser='u'\npassword='p'\n[store.encryption]\nkeyring=['0123456789abcdef']",
		"store.etcd.password travels unencrypted to http://e:1")
	f("not used", "[store.etcd]\nendpoints=['http://e:1']\nuser='u'\npassword='p'\ntls_verify=false")
	f("inert", "compat.accept_inert=['wolf-rbac']", `compat.accept_inert contains "wolf-rbac": what documents ask of this plugin does not happen`)
	f("unverified upstreams", "compat.mode='apisix'\nstore.encryption.keyring=['0123456789abcdef']",
		"compat.unverified_upstream_tls is on: whoever sits between the gateway and an upstream can read and change traffic")
	f("unverified upstreams taken back", "compat.mode='apisix'\ncompat.unverified_upstream_tls=false\nstore.encryption.keyring=['0123456789abcdef']")
	f("status", "[status]\nenabled=true\nlisten=':7085'", "status.listen :7085 is reachable from other machines and asks for no key")
}
