package proxy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
)

// FuzzQuarantine: whatever is asked for, what is taken has one target and stays within its bounds, and what is refused is the client's fault.
func FuzzQuarantine(f *testing.F) {
	f.Add(`{"route":"1","ttl":60,"reason":"a"}`)
	f.Add(`{"branch":"v2","route":"1","ttl":8.64e4,"reason":"a"}`)
	f.Add(`{"endpoint":"[::1]:80","ttl":1,"reason":"\u2028"}`)
	f.Add(`{"endpoint":"a","branch":"b","ttl":1e400,"reason":null}`)
	f.Add(`[{}]`)
	f.Fuzz(func(t *testing.T, body string) {
		o, err := readOrder([]byte(body))
		if err != nil {
			var refused *resource.Error
			if !errors.As(err, &refused) || refused.Status != 400 || refused.Msg == "" {
				t.Fatalf("%s: %v", body, err)
			}
			return
		}
		if o.ttl < time.Second || o.ttl > maxQuarantine || o.reason == "" || len(o.reason) > maxReason || strings.ContainsAny(o.reason, "\r\n") ||
			o.endpoint == "" && o.route == "" && o.branch == "" || o.endpoint != "" && o.route+o.branch != "" {
			t.Errorf("%s: %+v", body, o)
		}
	})
}

// TestBranchesOfARoute: a branch that is named with a route is that of the split which the route uses, whichever document holds it.
func TestBranchesOfARoute(t *testing.T) {
	r := startRig(t, openMem(t), map[string][]byte{
		"services/s":       []byte(`{"id":"s","plugins":{"tag":{"id":"s"}}}`),
		"plugin_configs/p": []byte(`{"id":"p","plugins":{"tag":{"id":"p"}}}`),
		"routes/1":         []byte(`{"id":"1","uri":"/1","service_id":"s","plugin_config_id":"p"}`),
		"routes/2":         []byte(`{"id":"2","uri":"/2","service_id":"s"}`),
		"routes/3":         []byte(`{"id":"3","uri":"/3","plugins":{"tag":{"id":"3"}}}`),
	})
	gates := balancer.NewGates(nil)
	b := NewBreakers(r.Applier, gates, func(string) {})
	at := func(owner string) balancer.Target {
		return balancer.Target{Scope: balancer.OfBranch, Owner: owner, Name: "v1"}
	}
	for _, owner := range []string{"services/s", "plugin_configs/p"} {
		gates.Acquire(at(owner))
	}
	for _, tt := range []struct{ route, in string }{{"1", "plugin_configs/p"}, {"2", "services/s"}, {"3", ""}, {"4", ""}} {
		q, err := b.Impose([]byte(`{"route":"`+tt.route+`","branch":"v1","ttl":60,"reason":"test"}`), "test")
		var refused *resource.Error
		switch {
		case tt.in == "" && (!errors.As(err, &refused) || refused.Status != 404):
			t.Errorf("route %s: %v", tt.route, err)
		case tt.in != "" && (err != nil || q.In != tt.in || gates.Acquire(at(tt.in)).Quarantined() == 0):
			t.Errorf("route %s: %+v, %v", tt.route, q, err)
		}
	}
	if got := b.Quarantines(); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	for i := range balancer.MaxQuarantines - 2 {
		if _, err := gates.Impose(balancer.Target{Scope: balancer.OfEndpoint, Name: time.Duration(i).String()}, time.Hour, "test"); err != nil {
			t.Fatal(err)
		}
	}
	gates.Acquire(at("routes/3"))
	_, err := b.Impose([]byte(`{"route":"3","branch":"v1","ttl":60,"reason":"test"}`), "test")
	var refused *resource.Error
	if !errors.As(err, &refused) || refused.Status != 409 {
		t.Errorf("one too many: %v", err)
	}
}
