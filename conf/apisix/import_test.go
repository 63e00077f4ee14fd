package apisix

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"headgate/conf"
)

const adminKeyText = "0123456789abcdef0123456789abcdef"

func imported(t *testing.T, config, resources string, getenv func(string) (string, bool)) (*conf.Config, string, []string) {
	t.Helper()
	var yaml []byte
	if resources != "" {
		yaml = []byte(resources)
	}
	text, notes, err := Import([]byte(config), yaml)
	if err != nil {
		t.Fatalf("Import: %v", err)
	}
	c, err := conf.Parse("headgate.toml", text, getenv, nil)
	if err != nil {
		t.Fatalf("the result does not parse: %v\n%s", err, text)
	}
	return c, string(text), notes
}

// A whole installation, with the result and the notes as they are written.
func TestImportGolden(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, text, notes := imported(t, read("config.yaml"), read("apisix.yaml"),
		env("ETCD_PASSWORD", "pw", "ADMIN_KEY", adminKeyText, "GATEWAY_PORT", "9081"))
	got := text + "\n# Notes\n"
	for _, n := range notes {
		got += "# " + n + "\n"
	}
	if diff := cmp.Diff(read("headgate.golden.toml"), got); diff != "" {
		t.Errorf("differs from testdata/headgate.golden.toml:\n%s", diff)
	}
}

// Nothing but defaults: what an APISIX without settings does that Headgate would not.
func TestImportEmpty(t *testing.T) {
	c, _, notes := imported(t, "# all defaults\n", "", nil)
	want := conf.Default()
	want.Store.Provider = conf.StoreEtcd
	want.Store.Encryption.Keyring = []conf.Secret{"qeddd145sfvddff3", "edd1c9f0985e76a2"}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(conf.Config{})); diff != "" {
		t.Errorf("got\n%s", diff)
	}
	for i, key := range []string{"apisix.data_encryption.keyring:", "deployment.admin.admin_listen:", "compat.mode:"} {
		if i >= len(notes) || !strings.HasPrefix(notes[i], key) {
			t.Fatalf("got notes %q, want one for %s", notes, key)
		}
	}
}

func TestImportSettings(t *testing.T) {
	f := func(name, config string, want func(c *conf.Config), note ...string) {
		t.Helper()
		// The frame keeps the notes of the defaults out.
		config += "\ndeployment:\n  role: data_plane\n  role_data_plane: {config_provider: yaml}\n"
		c, text, notes := imported(t, config, "#END\n", env("PORT", "8080", "SECRET", adminKeyText))
		w := conf.Default()
		w.Store.Provider = conf.StoreMem
		w.Admin.Enabled = false
		want(w)
		if diff := cmp.Diff(w, c, cmpopts.IgnoreUnexported(conf.Config{})); diff != "" {
			t.Errorf("%s:\n%s\n%s", name, diff, text)
		}
		notes = slices.DeleteFunc(notes, func(n string) bool { return strings.HasPrefix(n, "compat.mode: stays") })
		if diff := cmp.Diff(note, notes, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: notes:\n%s", name, diff)
		}
	}
	nothing := func(*conf.Config) {}
	f("a port", "apisix: {node_listen: 80}", func(c *conf.Config) { c.Gateway.Listen = []string{":80"} })
	f("ports", "apisix: {node_listen: [80, 81], enable_ipv6: false}", func(c *conf.Config) { c.Gateway.Listen = []string{"0.0.0.0:80", "0.0.0.0:81"} })
	f("addresses", "apisix:\n  node_listen:\n    - {ip: 127.0.0.2, port: 80}\n    - {port: 81, enable_http2: true}\n    - {ip: '::1', port: 82}",
		func(c *conf.Config) { c.Gateway.Listen = []string{"127.0.0.2:80", ":81", "[::1]:82"} },
		"apisix.node_listen[1]: HTTP/2 is offered over TLS only, and HTTP/3 is not")
	f("TLS", "apisix:\n  enable_http2: false\n  ssl: {enable: true, listen: [{port: 443, enable_http3: true}, {ip: 127.0.0.2, port: 444}], ssl_protocols: TLSv1.3, ssl_session_tickets: false, fallback_sni: a.test}",
		func(c *conf.Config) {
			s := &c.Gateway.TLS
			s.Listen, s.MinVersion, s.HTTP2, s.SessionTickets, s.FallbackSNI = []string{":443", "127.0.0.2:444"}, conf.TLS13, false, false, "a.test"
		}, "apisix.ssl.listen[0]: HTTP/3 is not offered to clients")
	f("no TLS", "apisix: {ssl: {enable: false, listen: [{port: 443}]}}", nothing)
	f("old TLS", "apisix: {ssl: {ssl_protocols: TLSv1.1 TLSv1.2 TLSv1.3, ssl_ciphers: x}}", nothing,
		"apisix.ssl.ssl_ciphers: cipher suites are chosen by the TLS library",
		"apisix.ssl.ssl_protocols: TLSv1.1 is not offered; an ssl resource may still ask for TLSv1.1")
	f("a port of the environment", "apisix: {node_listen: \"${{PORT}}\"}", func(c *conf.Config) { c.Gateway.Listen = []string{":8080"} })
	f("a default beside it", "apisix:\n  node_listen: [\"${{NONE:=8081}}\"]", func(c *conf.Config) { c.Gateway.Listen = []string{":8081"} })
	f("what the environment cannot say", "apisix: {delete_uri_tail_slash: \"${{SLASH}}\"}", nothing,
		"apisix.delete_uri_tail_slash: comes from the environment, which cannot set this kind of value: write it by hand")
	f("a bad address", "apisix: {node_listen: [{ip: example.com, port: 80}]}", nothing,
		`apisix.node_listen: left out: gateway.listen[0]: expected host:port with an IP address, localhost or no host, such as "127.0.0.1:9180" or "[::]:9080", got "example.com:80"`)
	f("a collision", "apisix: {node_listen: 9091}", nothing,
		`apisix.node_listen: left out: gateway.listen[0]: expected an address of its own, 127.0.0.1:9091 collides with metrics.listen`)
	f("the address of clients", "apisix: {trusted_addresses: [10.0.0.0/8]}\nnginx_config: {http: {real_ip_from: [127.0.0.1, 'unix:'], real_ip_header: X-Forwarded-For}}",
		func(c *conf.Config) { c.Gateway.TrustedAddresses = []string{"10.0.0.0/8", "127.0.0.1"} },
		"nginx_config.http.real_ip_header: the client's address is taken from X-Real-IP or X-Forwarded-For")
	f("times and sizes", "nginx_config:\n  worker_shutdown_timeout: 240s\n  http:\n    client_max_body_size: 10m\n    client_header_timeout: 1m 30s\n    client_body_timeout: 5\n    send_timeout: 500ms\n    keepalive_timeout: 1h\n    access_log_buffer: 16384\n",
		func(c *conf.Config) {
			parse := func(s string) conf.Duration {
				d, err := conf.ParseDuration(s)
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			c.Gateway.DrainTimeout, c.Gateway.MaxBodySize, c.Gateway.HeaderTimeout = parse("240s"), 10*conf.MiB, parse("90s")
			c.Gateway.BodyTimeout, c.Gateway.WriteTimeout, c.Gateway.IdleTimeout = parse("5s"), parse("500ms"), parse("1h")
			c.AccessLog.BufferSize = 16 * conf.KiB
		})
	f("bad times", "nginx_config: {http: {client_header_timeout: soon, client_body_timeout: 0, client_max_body_size: 0}}", nothing,
		"nginx_config.http.client_header_timeout: expected a length of time such as 60s",
		"nginx_config.http.client_max_body_size: 0 lifts the limit in APISIX; here there is always one, set gateway.max_body_size",
		"nginx_config.http.client_body_timeout: left out: gateway.body_timeout: expected more than 0s, got 0s")
	f("a log format", "nginx_config: {http: {access_log: /var/log/a.log, access_log_format: '$remote_addr ${request_time} \"$request\"'}}",
		func(c *conf.Config) {
			c.AccessLog.Path, c.AccessLog.Format = "/var/log/a.log", `$remote_addr ${request_time} "$request"`
		})
	f("a log format that is nginx's", "nginx_config: {http: {access_log: logs/a.log, access_log_format: '$remote_addr $connections_waiting'}}", nothing,
		"nginx_config.http.access_log: is not an absolute path of a file: set access_log.path",
		"nginx_config.http.access_log_format: Headgate's log has no variable $connections_waiting")
	f("no log", "nginx_config: {http: {enable_access_log: false, access_log: /x}}", func(c *conf.Config) { c.AccessLog.Path = "off" })
	f("probes", "apisix: {status: {ip: 127.0.0.1, port: 7086}}", func(c *conf.Config) { c.Status.Enabled, c.Status.Listen = true, "127.0.0.1:7086" })
	f("a charset", "nginx_config: {http: {charset: utf-8}}", func(c *conf.Config) { c.Compat.ResponseCharset = conf.ToggleOn })
	f("a keyring of one", "apisix: {data_encryption: {keyring: 0123456789abcdef}}", func(c *conf.Config) { c.Store.Encryption.Keyring = []conf.Secret{"0123456789abcdef"} })
	f("a keyring that is too short", "apisix: {data_encryption: {keyring: [short]}}", nothing,
		"apisix.data_encryption.keyring: left out: store.encryption.keyring[0]: expected 16 characters, got 5")
	f("snippets", "nginx_config: {http_configuration_snippet: 'x y;', main_configuration_snippet: ''}", nothing,
		"nginx_config.http_configuration_snippet: there is no nginx underneath")
	f("what nobody knows", "apisix: {frobnicate: {deep: 1, also: [2]}}\nfoo: bar", nothing,
		"apisix.frobnicate.also: Headgate has no such setting", "apisix.frobnicate.deep: Headgate has no such setting", "foo: Headgate has no such setting")
	f("wrong types", "apisix: {delete_uri_tail_slash: [1], control: 5}\nnginx_config: {http: {upstream: {keepalive: many}}}", nothing,
		"apisix.control: has a value of another type than APISIX takes", "apisix.delete_uri_tail_slash: has a value of another type than APISIX takes",
		"nginx_config.http.upstream.keepalive: has a value of another type than APISIX takes")
	f("dollars", "plugin_attr: {prometheus: {export_uri: '/m/${x}'}}", func(c *conf.Config) { c.Metrics.Path = "/m/${x}" })
}

func TestImportAdmin(t *testing.T) {
	c, text, notes := imported(t, `
deployment:
  admin:
    admin_key_required: true
    allow_admin: [10.0.0.0/8, "::1"]
    admin_listen: {ip: 127.0.0.1, port: 9280}
    enable_admin_cors: false
    admin_key:
      - {name: admin, key: "${{ADMIN_KEY}}", role: admin}
      - {name: admin, key: fedcba9876543210fedcba9876543210, role: viewer}
      - {name: weak, key: tooshort, role: admin}
      - {name: empty, key: "", role: admin}
      - {name: file, key: "file:/etc/passwd", role: admin}
  etcd:
    host: [https://e1:2379, https://e2:2379]
    prefix: /gw
    timeout: 30
    user: root
    password: "${{ETCD_PASSWORD}}"
    tls: {cert: /c.pem, key: /k.pem, verify: false, sni: etcd.internal}
apisix:
  ssl: {ssl_trusted_certificate: /ca.pem}
  data_encryption: {keyring: ["${{KEYRING}}", edd1c9f0985e76a2]}
`, "", env("ADMIN_KEY", adminKeyText, "ETCD_PASSWORD", "p$w", "KEYRING", "0123456789abcdef"))
	a, e := c.Admin, c.Store.Etcd
	if len(a.Keys) != 2 || a.Keys[0].Key.Reveal() != adminKeyText || a.Keys[0].Name != "admin" || a.Keys[1].Name != "admin-2" || a.Keys[1].Role != conf.RoleViewer {
		t.Errorf("got keys %+v", a.Keys)
	}
	if a.Listen != "127.0.0.1:9280" || a.CORS || !slices.Equal(a.Allow, []string{"10.0.0.0/8", "::1"}) {
		t.Errorf("got %+v", a)
	}
	if !slices.Equal(e.Endpoints, []string{"https://e1:2379", "https://e2:2379"}) || e.Prefix != "/gw" || e.User != "root" || e.Password.Reveal() != "p$w" ||
		e.TLSCert != "/c.pem" || e.TLSKey != "/k.pem" || e.TLSVerify || e.TLSServerName != "etcd.internal" || e.TLSCA != "/ca.pem" || e.Timeout.String() != "30s" {
		t.Errorf("got %+v", e)
	}
	if got := c.Keyring(); !slices.Equal(got, []string{"0123456789abcdef", "edd1c9f0985e76a2"}) {
		t.Errorf("got keyring %q", got)
	}
	for _, secret := range []string{"${ADMIN_KEY}", "${ETCD_PASSWORD}", "${KEYRING}"} {
		if !strings.Contains(text, secret) {
			t.Errorf("the result lacks %s", secret)
		}
	}
	joined := strings.Join(notes, "\n")
	for _, want := range []string{
		"deployment.admin.admin_key[2]: left out: expected at least 32 characters, got 8",
		"deployment.admin.admin_key[3]: is empty, APISIX makes a key then",
		"deployment.admin.admin_key[4]: begins with file:",
	} {
		if !strings.Contains(joined, want) {
			t.Errorf("no note %q in\n%s", want, joined)
		}
	}
	for _, secret := range []string{"tooshort", "/etc/passwd", "fedcba98"} {
		if strings.Contains(joined, secret) {
			t.Errorf("a note shows %s:\n%s", secret, joined)
		}
	}
}

const resourcesYAML = `
upstreams:
  - id: 1
    nodes: {"127.0.0.1:1980": 1, "[::1]:1981": 2}
    type: roundrobin
    timeout: {connect: 0.5, send: 1, read: 6.25}
    checks: {active: {http_path: /status, healthy: {http_statuses: [200, 302]}}}
services:
  - id: s
    upstream_id: 1
routes:
  - id: r1
    uris: [/a, "/b/*"]
    vars: [[arg_x, "==", "1"], [http_y, ">", 5], ["OR", [a, "in", [1, two, 3.5]], [b, "==", true]]]
    priority: -3
    service_id: s
    labels: {"with space": "x=y", "quo\"te": "<é>"}
    plugins:
      traffic-split:
        rules:
          - match: [{vars: [[arg_id, "==", "1"]]}]
            weighted_upstreams:
              - {upstream: {nodes: {"127.0.0.1:1": 1}, type: roundrobin}, weight: 2}
              - {weight: 1}
          - weighted_upstreams: [{weight: 1}]
      proxy-rewrite: {uri: "/x${y}$z", headers: {set: {A: "line1\nline2\ttab"}}}
  - uri: /unnamed
    upstream_id: 1
consumers:
  - username: jack
    plugins: {key-auth: {key: k1}}
  - id: jack/credentials/c1
    plugins: {key-auth: {key: k2}}
plugin_metadata: [{id: http-logger, log_format: {host: $host, "@timestamp": $time_iso8601}}]
secrets: [{id: vault/1, prefix: kv, token: t, uri: "http://v"}]
ssls: [{id: c, snis: [a.com], cert: "-----BEGIN\nx\n-----END", key: k}]
global_rules: [{id: g, plugins: {prometheus: {}}}]
plugin_configs: [{id: pc, plugins: {}}]
consumer_groups: [{id: cg, plugins: {}}]
protos: [{id: p, content: 'syntax = "proto3";'}]
stream_routes: [{id: 1}]
#END
`

// Every resource comes out of the TOML as it stood in the YAML.
func TestImportResources(t *testing.T) {
	c, text, notes := imported(t, "", resourcesYAML, nil)
	docs, _, err := ReadResources("x", []byte(resourcesYAML), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	for _, d := range docs {
		want[d.Key] = plain(t, d.Value)
	}
	got := map[string]any{}
	for key, doc := range c.Documents() {
		got[key] = plain(t, doc)
	}
	if len(want) != 13 {
		t.Errorf("got %d resources", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
	if !slices.Contains(notes, "apisix.yaml: stream_routes: ignored, Headgate has no stream proxy") {
		t.Errorf("got notes %q", notes)
	}
}

// plain returns v as JSON sees it.
func plain(t *testing.T, v any) any {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestImportResourceNotes(t *testing.T) {
	c, _, notes := imported(t, "", `routes:
  - {id: a, uri: /a, desc: }
  - {id: b, uri: /b, vars: [null]}
  - {id: c, uri: "${{PATH}}"}
  - {id: d, uri: /d, priority: 12345678901234567890}
#END
`, nil)
	if len(c.Routes) != 2 || c.Routes[0]["id"] != "a" || c.Routes[1]["uri"] != "${{PATH}}" {
		t.Errorf("got %v", c.Routes)
	}
	joined := strings.Join(notes, "\n")
	for _, want := range []string{
		"apisix.yaml:2: routes/a: members without a value are left out",
		"apisix.yaml:3: routes/b: left out: key vars.0: TOML can't hold a null inside an array",
		"apisix.yaml:4: routes/c: contains ${{...}}",
		"apisix.yaml:5: routes/d: left out: key priority",
	} {
		if !strings.Contains(joined, want) {
			t.Errorf("no note %q in\n%s", want, joined)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	for name, files := range map[string][2]string{
		"config.yaml:1: not valid YAML: ":           {"a: 1\n b: 2\n", "#END\n"},
		"config.yaml:1: expected a mapping":         {"- a\n", "#END\n"},
		"apisix.yaml: the file is unfinished":       {"", "routes: []\n"},
		"apisix.yaml:1: routes: expected a list":    {"", "routes: 5\n#END"},
		`apisix.yaml:2: key "id" stands twice in o`: {"", "routes:\n  - {id: 1, id: 2}\n#END"},
	} {
		text, notes, err := Import([]byte(files[0]), []byte(files[1]))
		if err == nil || text != nil || notes != nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
	}
}
