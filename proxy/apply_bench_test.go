package proxy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"headgate/conf/store"
	"headgate/conf/store/mem"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
)

// BenchmarkApply is one edit through the whole config path, the store being in memory, and the start on a store of that size.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		s := mem.Open()
		doc := func(i, version int) []byte {
			return fmt.Appendf(nil, `{"uri":"/svc%d/v%d/*","upstream_id":"u","desc":"%d","plugins":{"tag":{"id":"x"}}}`, i%1000, i, version)
		}
		put := func(key string, value []byte) {
			if _, err := s.Put(context.Background(), key, value, store.AnyRevision, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
		put("upstreams/u", []byte(`{"nodes":{"127.0.0.1:1":1}}`))
		for i := range n {
			put(fmt.Sprintf("routes/%d", i), doc(i, 0))
		}
		kind := phase.Kind{Name: "tag", Schema: []byte(`{"type":"object"}`), Build: func([]byte, phase.Env) (any, error) { return struct{}{}, nil }}
		start := func() (*Applier, func()) {
			hub := upstream.NewHub(upstream.NewResolver(time.Minute), nil)
			m := meter.New("")
			c, err := snapshot.NewCompiler(&snapshot.Live{}, snapshot.Options{Kinds: []phase.Kind{kind}, Hub: hub, Meter: m, Defaults: upstream.Defaults{MaxHead: 4096}})
			if err != nil {
				b.Fatal(err)
			}
			pool, err := offload.New(4, func(any) {})
			if err != nil {
				b.Fatal(err)
			}
			a, err := StartApplier(context.Background(), ApplierOptions{Compiler: c, Store: s, Offload: pool, Meter: m, Logf: b.Logf})
			if err != nil {
				b.Fatal(err)
			}
			return a, func() { a.Close(); c.Close(); hub.Close(); _ = pool.Close(time.Second) }
		}
		b.Run(fmt.Sprintf("edit/%d", n), func(b *testing.B) {
			a, stop := start()
			defer stop()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				id := i * 7919 % n
				if _, err := a.Apply(context.Background(), Change{
					Key: fmt.Sprintf("routes/%d", id), Edit: func(*store.Item) ([]byte, error) { return doc(id, i), nil },
				}); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("start/%d", n), func(b *testing.B) {
			for b.Loop() {
				_, stop := start()
				stop()
			}
		})
		_ = s.Close()
	}
}
