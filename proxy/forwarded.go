package proxy

import (
	"bytes"
	"net/netip"
	"strconv"
	"unsafe"

	"headgate/proxy/phase"
)

// client fills in who is at the other end of the connection.
func (e *edge) client(x *exchange) {
	c := &x.Client
	if conn := x.conn(); conn != nil {
		c.Peer, c.PeerText, c.Port = conn.peer, conn.peerText, conn.peerPort
		c.ServerAddr, c.ServerPort = conn.localText, conn.localPort
	}
	c.Addr, c.Text = c.Peer, c.PeerText
	c.Trusted = contains(e.trusted, c.Peer)
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwarded are the lines about the client's side that were kept.
type forwarded struct {
	realIP, via, proto, host, port []byte
}

// forwardedLine keeps what a trusted peer says about the client. What others say is dropped, but for the list of X-Forwarded-For
// where the operator wants it passed on; it is not believed even then.
func (e *edge) forwardedLine(name, value []byte, x *exchange) {
	f := &x.forwarded
	via := phase.EqualName(name, "x-forwarded-for")
	switch {
	case len(value) == 0:
	case !x.Client.Trusted && !(via && e.keepVia):
		if len(e.realIPFrom) > 0 && phase.EqualName(name, "x-real-ip") && contains(e.realIPFrom, x.Client.Peer) {
			f.realIP = value
		}
	case via && len(f.via) > 0:
		f.via = x.Commit(append(append(append(x.Arena(), f.via...), ", "...), value...))
	case via:
		f.via = value
	case phase.EqualName(name, "x-real-ip"):
		f.realIP = value
	case phase.EqualName(name, "x-forwarded-proto"):
		f.proto = value
	case phase.EqualName(name, "x-forwarded-host"):
		f.host = value
	case phase.EqualName(name, "x-forwarded-port"):
		f.port = value
	default: // X-Forwarded-Prefix and the like
		x.Request.Header.Add(name, value)
	}
}

var (
	nameRealIP         = []byte("X-Real-IP")
	nameForwardedFor   = []byte("X-Forwarded-For")
	nameForwardedProto = []byte("X-Forwarded-Proto")
	nameForwardedHost  = []byte("X-Forwarded-Host")
	nameForwardedPort  = []byte("X-Forwarded-Port")
	schemeHTTP         = []byte("http")
	schemeHTTPS        = []byte("https")
)

// vouch settles the client's address and adds the lines by which the upstream learns of it (contract section 3.5).
func (e *edge) vouch(x *exchange) {
	c, f, h := &x.Client, &x.forwarded, &x.Request.Header
	if a, ok := parseAddr(f.realIP); ok {
		c.Addr, c.Text, c.Port = a, x.Commit(a.AppendTo(x.Arena())), 0
	}
	h.Add(nameRealIP, c.Text)
	via := c.Text
	if len(f.via) > 0 {
		via = x.Commit(append(append(append(x.Arena(), f.via...), ", "...), c.Text...))
	}
	h.Add(nameForwardedFor, via)
	proto := schemeHTTP
	if x.Request.TLS {
		proto = schemeHTTPS
	}
	h.Add(nameForwardedProto, or(f.proto, proto))
	h.Add(nameForwardedHost, or(f.host, x.Request.Authority))
	port := or(f.port, portOf(x.hostport))
	if len(port) == 0 {
		port = x.Commit(strconv.AppendUint(x.Arena(), uint64(c.ServerPort), 10))
	}
	h.Add(nameForwardedPort, port)
}

// parseAddr reads an IP address without a zone: a zone is free text, which would reach logs and upstreams.
func parseAddr(b []byte) (netip.Addr, bool) {
	if len(b) == 0 || bytes.IndexByte(b, '%') >= 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(b), len(b))) // read only, and only during this call
	if err != nil {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// portOf returns the port of a valid authority, empty when it has none.
func portOf(hostport []byte) []byte {
	colon := bytes.LastIndexByte(hostport, ':')
	if colon < 0 || colon < bytes.LastIndexByte(hostport, ']') {
		return nil
	}
	return hostport[colon+1:]
}

func or(a, b []byte) []byte {
	if len(a) > 0 {
		return a
	}
	return b
}
