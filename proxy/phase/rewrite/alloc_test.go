//go:build !race

package rewrite

import (
	"testing"

	"headgate/proxy/phase"
)

var allocCases = []struct {
	name, conf string
	allocs     float64
}{
	{"static", `{"uri":"/v1/chat/completions"}`, 0},
	{"template", `{"uri":"/v1/$arg_model/$http_x_tenant?h=$host"}`, 0},
	{"headers", `{"host":"up.test","method":"POST","headers":{"add":{"X-A":["1","$remote_addr"]},"set":{"X-Tenant":"t-$arg_model"},"remove":["X-Gone"]}}`, 0},
	{"unsafe", `{"use_real_request_uri_unsafe":true}`, 0},
	{"prefix", `{"regex_uri":["^/none/(.*)","/n","^/chat/(.*)","/v1/$1"],"headers":{"set":{"X-Rest":"$1"}}}`, 0},
	{"regex without match", `{"regex_uri":["^/none/([a-z]+)/(.*)","/v1/$2/$1"]}`, 0},
	{"regex", `{"regex_uri":["^/chat/([a-z]+)","/v1/$1"]}`, 1},
	{"regex, two groups", `{"regex_uri":["^/(chat)/(.*)","/v1/$2/$1"]}`, 1},
}

// rounds makes a request that looks the same every time, in the memory of the one before.
func rounds(r *Rewriter) func() {
	x := &phase.Exchange{}
	settings := &phase.Settings{}
	method, path, query := []byte("GET"), []byte("/chat/completions"), []byte("model=m1")
	host, client := []byte("edge.test"), []byte("10.0.0.9")
	tenant, gone, value := []byte("X-Tenant"), []byte("X-Gone"), []byte("v")
	return func() {
		x.Reset()
		x.Begin(settings)
		q := &x.Request
		q.Method, q.RawPath, q.Path, q.Query, q.Host = method, path, path, query, host
		x.Client.Text = client
		q.Header.Add(tenant, value)
		q.Header.Add(gone, value)
		if r.Apply(x) == phase.Stop {
			panic("stopped")
		}
	}
}

func TestApplyAllocates(t *testing.T) {
	for _, tt := range allocCases {
		t.Run(tt.name, func(t *testing.T) {
			if n := testing.AllocsPerRun(500, rounds(compile(t, tt.conf))); n != tt.allocs {
				t.Errorf("%v allocations, want %v", n, tt.allocs)
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, tt := range allocCases {
		b.Run(tt.name, func(b *testing.B) {
			round := rounds(compile(b, tt.conf))
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}
