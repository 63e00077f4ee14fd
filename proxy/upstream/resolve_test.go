package upstream

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/fault"
)

func addresses(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// TestAddressesOfAName: one that refuses is passed over within the same attempt.
func TestAddressesOfAName(t *testing.T) {
	r := newRig(t)
	r.def.Pool.Size = 0 // dial each time
	r.names = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "three.test" {
			return nil, errors.New("SERVFAIL")
		}
		return addresses("127.0.0.55", "127.0.0.1", "127.0.0.56"), nil
	}
	s := serve(t, answers(ok2))
	s.host = "three.test"
	u := r.upstream(nil, s)
	for range 6 {
		x := request("POST", "/", "data")
		do(u, x).want(t, 200, "ok")
		if x.Attempts.Count != 1 {
			t.Fatalf("%d attempts", x.Attempts.Count)
		}
	}
	s2 := serve(t, answers(ok2))
	s2.host = "unknown.test"
	x := request("POST", "/", "data")
	do(r.upstream(nil, s2), x).wantFault(t, fault.UnknownNode)
	if statuses(x) != "503" {
		t.Fatalf("statuses %q", statuses(x))
	}
	do(r.upstream(func(d *resource.Upstream) { d.Nodes[0].Priority = 1 }, s2, s), request("POST", "/", "data")).want(t, 200, "ok")
}

// TestOrderOfAddresses: IPv4 before IPv6, each beginning with another address every time; an address is taken as it is.
func TestOrderOfAddresses(t *testing.T) {
	r := newRig(t)
	r.names = func(context.Context, string) ([]netip.Addr, error) {
		return addresses("2001:db8::1", "10.0.0.2", "::ffff:10.0.0.1", "2001:db8::2"), nil
	}
	p := r.hub.placeOf("name.test")
	defer p.release()
	for _, want := range [][]netip.Addr{
		addresses("10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"), addresses("10.0.0.2", "10.0.0.1", "2001:db8::2", "2001:db8::1"),
		addresses("10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"),
	} {
		got, from, err := p.addresses(context.Background())
		if err != nil || from == nil || !slices.Equal(got, want) {
			t.Fatalf("got %v, %v, %v, want %v", got, from, err, want)
		}
	}
	r.names = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("must not be asked") }
	for _, text := range []string{"10.1.2.3", "::1"} {
		p := r.hub.placeOf(text)
		if got, from, err := p.addresses(context.Background()); err != nil || from != nil || !slices.Equal(got, addresses(text)) {
			t.Errorf("%s: %v, %v, %v", text, got, from, err)
		}
	}
}
