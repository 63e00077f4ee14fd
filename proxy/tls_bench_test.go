package proxy

import (
	"crypto/tls"
	"net/http"
	"testing"
)

// BenchmarkHandshake is the whole of a connection: made, asked once, and closed, with the client's share.
func BenchmarkHandshake(b *testing.B) {
	for name, resume := range map[string]bool{"full": false, "resumed": true} {
		b.Run(name, func(b *testing.B) {
			up := newBackend(b, says(ok200))
			r := newSecureGate(b, defaults())
			r.to(up.addr)
			r.put("ssls/1", r.ca.ssl("a.test"))
			cfg := r.config("a.test")
			if resume {
				cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			}
			for b.Loop() {
				c, err := r.try(cfg)
				if err != nil {
					b.Fatal(err)
				}
				newClient(r.gateRig, b, c).sayTo("a.test", "/").want("GET", 200, "ok")
				_ = c.Close()
			}
		})
	}
}

// BenchmarkHTTP2 is one request on a connection that is open, with the client's share.
func BenchmarkHTTP2(b *testing.B) {
	up := newBackend(b, says(ok200))
	r := newH2Gate(b, defaults(), up)
	c := r.speaker(b)
	for b.Loop() {
		if res, _, err := ask(b, c, http.MethodGet, "/", nil); err != nil || res.StatusCode != 200 {
			b.Fatal(err)
		}
	}
}

// BenchmarkHTTP1OverTLS is the same over HTTP/1.1.
func BenchmarkHTTP1OverTLS(b *testing.B) {
	up := newBackend(b, says(ok200))
	r := newH2Gate(b, defaults(), up)
	c := r.open(b, r.config("a.test"))
	for b.Loop() {
		c.sayTo("a.test", "/").want("GET", 200, "ok")
	}
}
