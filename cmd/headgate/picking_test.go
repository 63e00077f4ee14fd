package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"headgate/conf"
)

// TestHashedNodes: requests with the same key go to the same node, whatever the key is taken from; a node that is added, through the Admin API
// and with a weight of its own, gets its share, and no other request goes elsewhere than before.
func TestHashedNodes(t *testing.T) {
	const keys = 300
	g := startGate(t, onLoopback(t, conf.Default()))
	var addrs []string
	for range 4 {
		u := newFaultUpstream(t, nil, func(p *faultPeer) { saying(whole(p.LocalAddr().String()))(p) })
		addrs = append(addrs, u.addr)
	}
	for _, tt := range []struct {
		name, on, key string
		request       func(key int) (path string, lines []string)
	}{
		{"a variable", "vars", "arg_k", func(k int) (string, []string) { return fmt.Sprintf("/h?k=%d", k), nil }},
		{"the path", "vars", "uri", func(k int) (string, []string) { return fmt.Sprintf("/h/%d", k), nil }},
		{"a header", "header", "X-Tenant", func(k int) (string, []string) { return "/h", []string{fmt.Sprintf("X-Tenant: t%d", k)} }},
		{"a cookie", "cookie", "sid", func(k int) (string, []string) { return "/h", []string{fmt.Sprintf("Cookie: a=b; sid=%d", k)} }},
		{"several variables", "vars_combinations", "$arg_k-$request_method", func(k int) (string, []string) { return fmt.Sprintf("/h?k=%d", k), nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			homes := func() (all []string) {
				for k := range keys {
					path, lines := tt.request(k)
					a := send(t, g.client, "GET", "http://"+g.addr+path, "", lines...)
					if a.status != http.StatusOK {
						t.Fatal(a)
					}
					all = append(all, a.body)
				}
				return all
			}
			g.configure("PUT", "/upstreams/hashed", fmt.Sprintf(`{"type":"chash","hash_on":%q,"key":%q,"nodes":{%q:10,%q:10,%q:10}}`,
				tt.on, tt.key, addrs[0], addrs[1], addrs[2]))
			g.configure("PUT", "/routes/hashed", `{"uris":["/h","/h/*"],"upstream_id":"hashed"}`)
			before := homes()
			if again := homes(); !slices.Equal(again, before) {
				t.Error("the same keys went elsewhere the second time")
			}
			g.configure("PATCH", "/upstreams/hashed", fmt.Sprintf(`{"nodes":{%q:5}}`, addrs[3]))
			moved := 0
			for k, home := range homes() {
				if home == before[k] {
					continue
				}
				if moved++; home != addrs[3] {
					t.Errorf("key %d went from %s to %s, not to the new node", k, before[k], home)
				}
			}
			if want := keys / 7; moved < want/3 || moved > want*3 {
				t.Errorf("%d of %d keys went to a node with a seventh of the weight", moved, keys)
			}
			g.configure("PATCH", "/upstreams/hashed", fmt.Sprintf(`{"nodes":{%q:null}}`, addrs[3]))
			if back := homes(); !slices.Equal(back, before) {
				t.Error("without the new node the keys are not where they were")
			}
		})
	}
}

// TestChecksOfEveryKind: probes over HTTP, HTTPS and TCP begin with the upstream, before any request and any route; what they have found outlives
// edits of other fields, of other nodes and of the checks, and can be read as JSON and as a page.
func TestChecksOfEveryKind(t *testing.T) {
	ca, file := testAuthority(t)
	c := onLoopback(t, conf.Default())
	c.Upstream.CAFile = file
	g := startGate(t, c)
	answering := func(status string) func(p *faultPeer) {
		return saying("HTTP/1.1 " + status + "\r\nContent-Length: 2\r\n\r\nok")
	}
	secure := serverTLS(t, ca, "https")
	other := serverTLS(t, ca, "https")
	other.Certificates[0] = *ca.leafFor(t, "other.example")
	third := newFaultUpstream(t, nil, answering("200 OK"))
	for kind, tt := range map[string]struct {
		scheme, well, sick, failure string
	}{
		"http":  {"http", newFaultUpstream(t, nil, answering("200 OK")).addr, newFaultUpstream(t, nil, answering("500 No")).addr, "http_failure"},
		"https": {"https", newFaultUpstream(t, secure, answering("200 OK")).addr, newFaultUpstream(t, other, answering("200 OK")).addr, "tcp_failure"},
		"tcp":   {"http", newFaultUpstream(t, nil, answering("200 OK")).addr, refusingAddr(t), "tcp_failure"},
	} {
		t.Run(kind, func(t *testing.T) {
			write := func(fields string) {
				g.configure("PUT", "/upstreams/"+kind, fmt.Sprintf(`{"scheme":%q,"retries":0,%s"checks":{"active":{"type":%q,"timeout":30,
					"healthy":{"interval":1,"successes":1},"unhealthy":{"interval":1,"http_failures":1,"tcp_failures":1}}}}`, tt.scheme, fields, kind))
			}
			type node struct {
				IP      string         `json:"ip"`
				Port    int            `json:"port"`
				Status  string         `json:"status"`
				Counter map[string]int `json:"counter"`
			}
			look := func(addr string) (found node) {
				var view struct{ Nodes []node }
				a := g.control("GET", "/v1/healthcheck/upstreams/"+kind, "")
				if err := json.Unmarshal([]byte(a.body), &view); err != nil {
					t.Fatalf("%v: %v", a, err)
				}
				for _, n := range view.Nodes {
					if n.IP+":"+strconv.Itoa(n.Port) == addr {
						found = n
					}
				}
				return found
			}
			write(fmt.Sprintf(`"nodes":{%q:1,%q:1},`, tt.well, tt.sick))
			eventually(t, "the first probes", func() bool {
				sick := look(tt.sick)
				return sick.Status == "unhealthy" && sick.Counter[tt.failure] > 0
			})
			if n := look(tt.well); n.Status != "healthy" {
				t.Errorf("the other node is %+v", n)
			}
			g.configure("PUT", "/routes/"+kind, fmt.Sprintf(`{"uri":"/%s","upstream_id":%q}`, kind, kind))
			for _, edit := range []string{
				fmt.Sprintf(`"nodes":{%q:1,%q:1},"desc":"another one","retries":0,"timeout":{"connect":30,"send":30,"read":30},`, tt.well, tt.sick),
				fmt.Sprintf(`"nodes":{%q:1,%q:3,%q:0},`, tt.well, tt.sick, third.addr),
			} {
				write(edit)
				if n := look(tt.sick); n.Status != "unhealthy" {
					t.Errorf("after an edit the sick node is %+v", n)
				}
				for range 6 {
					if a := g.get("/" + kind); a.status != http.StatusOK {
						t.Errorf("after an edit: %v", a)
					}
				}
			}
			page := g.control("GET", "/v1/healthcheck", "", "Accept: text/html")
			if !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || !strings.Contains(page.body, portOf(tt.sick)) ||
				!strings.Contains(page.body, "unhealthy") {
				t.Errorf("the page: %v %v", page.header, page.body)
			}
		})
	}
}
