package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"headgate/conf"
)

// TestBodiesAndPlugins: plugins that need the body have it whole, or refuse it; the upstream gets what they have seen, however long it is and
// however it comes.
func TestBodiesAndPlugins(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%d %v", n, err)
	}))
	t.Cleanup(up.Close)
	c := onLoopback(t, conf.Default())
	c.Gateway.MaxHeldBody = 1 << 20
	g := startGate(t, c)
	route := func(id, more string) {
		g.configure("PUT", "/routes/"+id, fmt.Sprintf(`{"uri":"/%s",%s"upstream":{"nodes":{%q:1}}}`, id, more, up.Listener.Addr()))
	}
	route("plain", "")
	route("control", `"plugins":{"client-control":{"max_body_size":150000}},`)
	route("validated", `"plugins":{"request-validation":{"body_schema":{"type":"object","required":["a"]}}},`)
	route("matched", `"vars":[["post_arg.a","==","1"]],`)
	route("mirrored", `"plugins":{"proxy-mirror":{"host":"http://`+up.Listener.Addr().String()+`"}},`)
	document := func(n int) string { return `{"a":"1","b":"` + strings.Repeat("x", n-len(`{"a":"1","b":""}`)) + `"}` }
	for _, tt := range []struct {
		id   string
		n    int
		want int
	}{
		{"plain", 100, 200}, {"plain", 200_000, 200}, {"plain", 2 << 20, 200},
		{"control", 100_000, 200}, {"control", 200_000, 413},
		{"validated", 100, 200}, {"validated", 500_000, 200}, {"validated", 2 << 20, 413},
		{"matched", 100, 200}, {"matched", 500_000, 200}, {"matched", 2 << 20, 404},
		{"mirrored", 100, 200}, {"mirrored", 500_000, 200}, {"mirrored", 2 << 20, 200},
	} {
		for _, announced := range []bool{true, false} {
			q, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+g.addr+"/"+tt.id, io.MultiReader(strings.NewReader(document(tt.n))))
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Content-Type", "application/json")
			if q.ContentLength = -1; announced {
				q.ContentLength = int64(tt.n)
			}
			res, err := g.client.Do(q)
			if err != nil {
				t.Errorf("%s %d, announced %t: %v", tt.id, tt.n, announced, err)
				continue
			}
			got, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != tt.want || tt.want == 200 && string(got) != fmt.Sprintf("%d <nil>", tt.n) {
				t.Errorf("%s %d, announced %t: %d %.80q", tt.id, tt.n, announced, res.StatusCode, got)
			}
		}
	}
}
