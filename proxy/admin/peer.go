package admin

import (
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"
)

// Peer returns the address at the other end of the TCP connection, IPv4 in its short form and without a zone, whatever the headers
// say. It is invalid for connections that are not TCP.
func Peer(ctx *fasthttp.RequestCtx) netip.Addr {
	tcp, ok := ctx.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// CrossSite reports that a web page is behind the request. Where no secret header is asked for, that is how a page that an operator
// happens to visit would reach a listener on the operator's machine: by a plain cross-site request, which the browser marks, or by a
// name of its own that it lets resolve to the listener's address (DNS rebinding), which shows in Host. Programs other than browsers
// send no Sec-Fetch-Site, and reach loopback as an address or as localhost.
func CrossSite(ctx *fasthttp.RequestCtx) bool {
	switch string(ctx.Request.Header.Peek("Sec-Fetch-Site")) {
	case "", "same-origin", "none":
	default:
		return true
	}
	return Peer(ctx).IsLoopback() && !localHost(string(ctx.Host()))
}

// ForeignOrigin reports that the request names an origin other than the listener it came to. Browsers name it in every request that could
// change something, programs do not; of a listener that serves no pages every origin is foreign but its own address.
func ForeignOrigin(ctx *fasthttp.RequestCtx) bool {
	origin := string(ctx.Request.Header.Peek("Origin"))
	if origin == "" {
		return false
	}
	scheme, host, _ := strings.Cut(origin, "://")
	return scheme != "http" && scheme != "https" || !strings.EqualFold(host, string(ctx.Host()))
}

// localHost accepts IP literals, localhost and no Host at all, each with or without a port.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
