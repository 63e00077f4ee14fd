package upstream

import (
	"fmt"
	"net/netip"

	"headgate/conf/resource"
)

// filter says which addresses are never dialled, whatever name or document has them: those behind which cloud machines find their
// credentials, and those that no server can have. Loopback and private addresses are where nodes are, so they pass.
type filter struct {
	allow []netip.Prefix
	// store says that documents may name such addresses; they are not dialled all the same.
	store bool
}

// Restrict sets which addresses are dialled although the filter refuses them, and whether documents may name the others; it is called once,
// before the first upstream.
func (h *Hub) Restrict(allow []netip.Prefix, store bool) { h.filter = filter{allow, store} }

var (
	metadata6 = netip.MustParseAddr("fd00:ec2::254") // the one of 169.254.169.254 in IPv6
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	thisHost  = netip.MustParsePrefix("0.0.0.0/8")    // RFC 1122 section 3.2.1.3
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: an IPv4 address in its last four bytes
)

// refuses returns what a is that must not be dialled, "" when it may be.
func (f *filter) refuses(a netip.Addr) string {
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	why := ""
	switch {
	case a.IsLinkLocalUnicast():
		why = "a link-local address"
	case a.IsMulticast():
		why = "a multicast address"
	case a.IsUnspecified(), thisHost.Contains(a):
		why = "no address of a server"
	case a == broadcast:
		why = "a broadcast address"
	case a.WithZone("") == metadata6:
		why = "the address of a metadata service"
	default:
		return ""
	}
	for _, p := range f.allow {
		if p.Contains(a.WithZone("")) {
			return ""
		}
	}
	return why
}

// admits refuses a document with a node that would never be dialled.
func (f *filter) admits(nodes []resource.Node) error {
	if f.store {
		return nil
	}
	for _, n := range nodes {
		a, err := netip.ParseAddr(n.Host)
		if err != nil {
			continue
		}
		if why := f.refuses(a); why != "" {
			return fmt.Errorf("nodes: %s is %s, which is not dialled; allow it with allow_addresses of [upstream] in the configuration file", n.Host, why)
		}
	}
	return nil
}
