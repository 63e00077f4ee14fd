package main

import (
	"io"
	"net/http"
	"slices"
	"testing"

	"headgate/conf"
)

// TestCachedTrailers: an answer that is kept has its trailers once, for the client that it was fetched for; the cache keeps header lines and body
// (RFC 9111 section 3 lets it). A digest that the upstream computed stays true of what passes through to be kept.
func TestCachedTrailers(t *testing.T) {
	up := newCounted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=100")
		w.Header().Set("Trailer", "Content-Digest, X-Sum")
		w.WriteHeader(http.StatusOK)
		for range 20 {
			_, _ = w.Write(make([]byte, 5000))
		}
		w.Header().Set("Content-Digest", "sha-256=:a:")
		w.Header().Set("X-Sum", "1")
	})
	g := startGate(t, onLoopback(t, conf.Default()))
	g.configure("PUT", "/routes/1", `{"uri":"/*","upstream":{"nodes":{"`+up.addr+`":1}},"plugins":{"proxy-cache":`+inMemory+`}}`)
	client := newClient(t)
	for _, want := range []string{"MISS", "HIT", "HIT"} {
		res, err := client.Get("http://" + g.addr + "/a")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || len(body) != 100_000 || res.Header.Get("Apisix-Cache-Status") != want {
			t.Fatalf("%d bytes, %v, %v", len(body), err, res.Header)
		}
		if want == "HIT" && len(res.Trailer) > 0 || want == "MISS" && !(slices.Equal(res.Trailer["X-Sum"], []string{"1"}) && slices.Equal(res.Trailer["Content-Digest"], []string{"sha-256=:a:"})) {
			t.Errorf("%s: behind the body %v", want, res.Trailer)
		}
		if res.Header.Get("X-Sum") != "" || res.Header.Get("Content-Digest") != "" {
			t.Errorf("%s: trailers have become header lines: %v", want, res.Header)
		}
	}
	if n := up.hits.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}
