package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importedConfig is a config.yaml such as people have it: a gateway that takes its resources from apisix.yaml, some settings that
// Headgate has under another name, some that it has no use for.
const importedConfig = `apisix:
  node_listen:
    - ip: 127.0.0.1
      port: ${{GATEWAY_PORT}}
  enable_ipv6: false
  enable_admin: true
  enable_control: true
  control: {ip: 127.0.0.1, port: %[2]d}
  proxy_mode: http
  router: {http: radixtree_uri}
  delete_uri_tail_slash: true
  enable_server_tokens: false
nginx_config:
  worker_processes: auto
  error_log_level: warn
  http:
    client_max_body_size: 1m
    access_log: %[1]s
    keepalive_timeout: 30s
    upstream: {keepalive: 16, keepalive_requests: 100, keepalive_timeout: 3s}
plugins: [key-auth, limit-count, proxy-rewrite, traffic-split, prometheus, response-rewrite]
plugin_attr:
  prometheus:
    export_uri: /apisix/prometheus/metrics
    export_addr: {ip: 127.0.0.1, port: %[3]d}
deployment:
  role: data_plane
  role_data_plane: {config_provider: yaml}
  admin:
    admin_key_required: true
    admin_listen: {ip: 127.0.0.1, port: 9180}
    allow_admin: [127.0.0.0/24]
    admin_key:
      - {name: admin, key: "${{ADMIN_KEY}}", role: admin}
`

// importedResources is an apisix.yaml: a service split between two versions, a guarded route with a rewritten path, a consumer.
const importedResources = `upstreams:
  - id: 1
    name: stable
    type: roundrobin
    nodes: {%[1]q: 1}
  - id: canary
    type: roundrobin
    nodes:
      - {host: 127.0.0.1, port: %[2]d, weight: 10}
services:
  - id: shop
    upstream_id: 1
    plugins:
      response-rewrite:
        headers: {set: {X-Served-By: shop}}
routes:
  - id: 1
    name: orders
    uri: /orders/*
    methods: [GET, POST]
    service_id: shop
    plugins:
      key-auth: {}
      proxy-rewrite: {regex_uri: ["^/orders/(.*)", "/v1/$1"]}
  - id: test
    uris: [/test, /test/*]
    plugins:
      traffic-split:
        rules:
          - match: [{vars: [["http_x_canary", "==", "yes"]]}]
            weighted_upstreams: [{upstream_id: canary, weight: 1}]
    upstream_id: 1
consumers:
  - username: jack
    plugins:
      key-auth: {key: jack-key}
global_rules:
  - id: 1
    plugins: {prometheus: {}}
#END
`

// TestImport: the files of an APISIX become a configuration that passes the check and does the same.
func TestImport(t *testing.T) {
	stable, canary := newUpstream(t, "stable", nil), newUpstream(t, "canary", nil)
	dir := t.TempDir()
	base := freePortRange(t, 3)
	t.Setenv("GATEWAY_PORT", fmt.Sprint(base))
	t.Setenv("ADMIN_KEY", adminKey)
	accessLog := filepath.Join(dir, "access.log")
	writeFile(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf(importedConfig, accessLog, base+1, base+2))
	writeFile(t, filepath.Join(dir, "apisix.yaml"), fmt.Sprintf(importedResources, stable.addr, canary.Listener.Addr().(*net.TCPAddr).Port))

	importArgs := []string{"import", "-config-yaml", "config.yaml", "-apisix-yaml", "apisix.yaml", "-o", "headgate.toml"}
	stdout, notes, status := runChild(t, dir, importArgs...)
	if status != 0 || stdout != "" {
		t.Fatalf("status %d: %s%s", status, stdout, notes)
	}
	for _, want := range []string{"nginx_config.error_log_level", "nginx_config.worker_processes", "compat.mode"} {
		if !strings.Contains(notes, "note: "+want) {
			t.Errorf("no note about %s:\n%s", want, notes)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "headgate.toml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration has secrets in it: %v, %v", info.Mode(), err)
	}
	// What is there already is not overwritten.
	if _, stderr, status := runChild(t, dir, importArgs...); status != 1 || !strings.Contains(stderr, "headgate.toml") {
		t.Errorf("a second import: status %d: %s", status, stderr)
	}
	if stdout, stderr, status := runChild(t, dir, "check", "-c", "headgate.toml"); status != 0 || !strings.Contains(stdout, "headgate.toml: ok") {
		text, _ := os.ReadFile(filepath.Join(dir, "headgate.toml"))
		t.Fatalf("check: status %d: %s%s\n%s", status, stdout, stderr, text)
	}
	imported{startChild(t, dir, "run", "-c", "headgate.toml"), newClient(t), base}.serves(t, accessLog, stable)
}

type imported struct {
	*child
	client *http.Client
	base   int // the gateway's port; those of the control API and the metrics follow
}

func (i imported) serves(t *testing.T, accessLog string, stable *upstreamServer) {
	t.Helper()
	for n, listener := range []string{"gateway", "control", "metrics"} {
		if want := fmt.Sprintf("127.0.0.1:%d", i.base+n); i.addr(listener) != want {
			t.Errorf("%s listens on %s, want %s", listener, i.addr(listener), want)
		}
	}
	if strings.Contains(i.stderr.String(), "admin listens") {
		t.Error("a data plane has an Admin API")
	}
	url := "http://" + i.addr("gateway")
	for _, tt := range []struct {
		method, path string
		fields       []string
		status       int
		body         string
	}{
		{"GET", "/orders/7", nil, http.StatusUnauthorized, ""},
		{"GET", "/orders/7", []string{"apikey: jack-key"}, http.StatusOK, "stable\n"},
		{"DELETE", "/orders/7", []string{"apikey: jack-key"}, http.StatusNotFound, ""},
		{"GET", "/test/", nil, http.StatusOK, "stable\n"},
		{"GET", "/test", []string{"X-Canary: yes"}, http.StatusOK, "canary\n"},
		{"GET", "/elsewhere", nil, http.StatusNotFound, ""},
	} {
		a := send(t, i.client, tt.method, url+tt.path, "", tt.fields...)
		if a.status != tt.status || tt.body != "" && a.body != tt.body {
			t.Errorf("%s %s %v: %v, want %d %s", tt.method, tt.path, tt.fields, a, tt.status, tt.body)
		}
		if tt.status == http.StatusOK && strings.HasPrefix(tt.path, "/orders") && a.header.Get("X-Served-By") != "shop" {
			t.Errorf("%s: %v", tt.path, a.header)
		}
	}
	if seen := stable.take(); len(seen) == 0 || seen[0].target != "/v1/7" {
		t.Errorf("the upstream saw %+v", seen)
	}
	// The head alone: what the gateway does not read of a body may cost the client the answer.
	res, _, err := dialWire(t, i.addr("gateway")).exchange("POST /test HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n")
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %v, %v", res, err)
	}
	if a := send(t, i.client, "GET", "http://"+i.addr("control")+"/v1/route/1", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"uri":"/orders/*"`) {
		t.Errorf("the control API: %v", a)
	}
	if a := send(t, i.client, "GET", "http://"+i.addr("metrics")+"/apisix/prometheus/metrics", ""); !strings.Contains(a.body, `apisix_http_status{code="200"`) {
		t.Errorf("the metrics: %v", a)
	}
	eventually(t, "the access log", func() bool {
		text, _ := os.ReadFile(accessLog)
		return strings.Contains(string(text), "/orders/7")
	})
}
