package iprestriction

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// networks is a set of addresses as ranges that are sorted and don't touch, so that a look-up is a binary search however long the
// list was.
type networks []span

// span has both ends in it. They are of one family.
type span struct{ first, last netip.Addr }

// newNetworks understands addresses and networks in CIDR form. An IPv4 address written as IPv6 counts as IPv4.
func newNetworks(list []string) (networks, error) {
	spans := make([]span, 0, len(list))
	for _, text := range list {
		p, ok := parsePrefix(text)
		if !ok {
			return nil, errors.New("invalid ip address: " + text)
		}
		spans = append(spans, span{p.Addr(), lastOf(p)})
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	merged := spans[:0]
	for _, s := range spans {
		n := len(merged)
		if n > 0 && s.first.Compare(merged[n-1].last) <= 0 { // families cannot mix: every IPv4 address sorts before every IPv6 one
			if merged[n-1].last.Less(s.last) {
				merged[n-1].last = s.last
			}
			continue
		}
		merged = append(merged, s)
	}
	return slices.Clip(merged), nil
}

func parsePrefix(text string) (netip.Prefix, bool) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), err == nil && a.Zone() == ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// lastOf returns the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

func (n networks) contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	low, high := 0, len(n)
	for low < high { // all before low begin at or below a, all from high on above it
		middle := int(uint(low+high) >> 1)
		if n[middle].first.Compare(a) <= 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low > 0 && a.Compare(n[low-1].last) <= 0
}
