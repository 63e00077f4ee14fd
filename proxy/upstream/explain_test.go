package upstream

import (
	"fmt"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

func explained(t *testing.T, doc string) *Upstream {
	t.Helper()
	d, err := resource.DecodeUpstream([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	hub := NewHub(NewResolver(time.Minute), nil)
	u, err := Compile(hub, d, "u", Defaults{Pool: PoolOptions{Size: 1, MaxRequests: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close(); hub.Close() })
	return u
}

func TestExplainIsWhereForwardGoes(t *testing.T) {
	tests := []struct{ name, kind, more string }{
		{"round robin", balancer.RoundRobin, ""},
		{"least connections", balancer.LeastConn, ""},
		{"by a header", balancer.ConsistHash, `,"hash_on":"header","key":"X-User"`},
		{"by a header that is not there", balancer.ConsistHash, `,"hash_on":"header","key":"X-Other"`},
		{"by several", balancer.ConsistHash, `,"hash_on":"vars_combinations","key":"$http_x_user-$remote_addr"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := explained(t, `{"type":"`+tt.kind+`"`+tt.more+`,"nodes":[{"host":"10.0.0.1","port":80,"weight":5},{"host":"10.0.0.2","weight":2},`+
				`{"host":"10.0.0.3","port":81,"weight":3,"priority":-1}]}`)
			seen := map[string]bool{}
			for i := range 100 {
				x := &phase.Exchange{}
				x.Client.Text = fmt.Appendf(nil, "10.1.1.%d", i)
				x.Request.Header.Add([]byte("X-User"), fmt.Appendf(nil, "user-%d", i))
				e, f := u.Explain(x)
				if again, _ := u.Explain(x); f != nil || again.Next != e.Next {
					t.Fatalf("said %s, then %s, fault %v", e.Next, again.Next, f)
				}
				var key uint64
				if u.hash != nil {
					key = u.hash.of(x)
				}
				if got := u.nodes[u.pick.Pick(nil, key)].addr; got != e.Next || e.Type != tt.kind {
					t.Fatalf("request %d goes to %s, explained as %+v", i, got, e)
				}
				seen[e.Next] = true
			}
			if len(seen) < 2 && tt.kind != balancer.LeastConn || seen["10.0.0.3:81"] {
				t.Errorf("nodes %v", seen)
			}
		})
	}
}

func TestExplainNodes(t *testing.T) {
	u := explained(t, `{"nodes":[{"host":"10.0.0.1","port":80,"weight":5},{"host":"[::1]","weight":2,"priority":1}]}`)
	u.nodes[1].SetHealthy(false)
	e, f := u.Explain(&phase.Exchange{})
	want := Explanation{Name: "u", Type: balancer.RoundRobin, Next: "10.0.0.1:80", Nodes: []ExplainedNode{
		{"10.0.0.1:80", 5, 0, true, ""}, {"[::1]:80", 2, 1, false, ""},
	}}
	if fmt.Sprintf("%+v", e) != fmt.Sprintf("%+v", want) || f != nil {
		t.Errorf("got %+v, %v, want %+v", e, f, want)
	}
	u.leaveAlone(&u.nodes[1].lost, time.Hour)
	if e, _ := u.Explain(&phase.Exchange{}); e.Nodes[0].State != "" || e.Nodes[1].State != "resting" {
		t.Errorf("with one that rests: %+v", e)
	}
	if e, f := explained(t, `{"nodes":[]}`).Explain(&phase.Exchange{}); f != fault.NoEndpoint || e.Nodes == nil || e.Next != "" {
		t.Errorf("without nodes: %+v, %v", e, f)
	}
}

func TestSame(t *testing.T) {
	const doc = `{"nodes":{"10.0.0.1:80":1}}`
	a, b := explained(t, doc), explained(t, doc)
	if !a.Same(a.WithTimeout(&resource.Timeout{Read: time.Second})) || a.Same(b) {
		t.Error("an upstream is taken for another")
	}
}
