package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"headgate/conf"
	"headgate/proxy/upstream/dns"
)

// NewResolver returns a resolver that asks as the system is configured to, with the bounds that are the defaults of the configuration.
// refresh is how long an answer holds that has no TTL.
func NewResolver(refresh time.Duration) *dns.Resolver {
	d := conf.Default().Upstream
	return dns.New(dns.Options{
		Source: dns.System(dns.SystemOptions{Refresh: refresh}), MinTTL: d.DNSMinTTL.Std(), MaxTTL: d.DNSMaxTTL.Std(), Stale: d.DNSStale.Std(),
	})
}

// place is where connections to a node go: an address, or a name that stands for some.
type place struct {
	addr   netip.Addr
	name   *dns.Name // nil for an address
	filter *filter
}

// placeOf returns the place of host; release gives it back.
func (h *Hub) placeOf(host string) place {
	if a, err := netip.ParseAddr(host); err == nil {
		return place{addr: a.Unmap(), filter: &h.filter}
	}
	return place{name: h.resolver.Name(host), filter: &h.filter}
}

func (p *place) release() {
	if p.name != nil {
		p.name.Release()
	}
}

// errRefused says that the filter refuses every address of a node.
var errRefused = errors.New("allow_addresses of [upstream] does not allow it")

// addresses returns at least one address that may be dialled: those of IPv4 before those of IPv6, starting with another one each time. from
// is the answer that they were taken from, nil for a place that is an address.
func (p *place) addresses(ctx context.Context) (list []netip.Addr, from *dns.Answer, err error) {
	if p.name == nil {
		if why := p.filter.refuses(p.addr); why != "" {
			return nil, nil, fmt.Errorf("%v is %s and %w", p.addr, why, errRefused)
		}
		return []netip.Addr{p.addr}, nil, nil
	}
	if from, err = p.name.Lookup(ctx); err != nil {
		return nil, nil, err
	}
	var four, six []netip.Addr
	for i := range from.Records {
		a := from.Records[i].Addr
		switch why := p.filter.refuses(a); {
		case why != "":
			err = fmt.Errorf("%v is %s and %w", a, why, errRefused)
		case a.Is4():
			four = append(four, a)
		default:
			six = append(six, a)
		}
	}
	if len(four)+len(six) == 0 {
		return nil, nil, err
	}
	turn := int(p.name.Turn())
	return append(rotated(four, turn), rotated(six, turn)...), from, nil
}

func rotated(list []netip.Addr, by int) []netip.Addr {
	if len(list) == 0 {
		return nil
	}
	by %= len(list)
	return append(list[by:len(list):len(list)], list[:by]...)
}
