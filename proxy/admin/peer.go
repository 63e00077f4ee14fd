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
// name of its own that it lets resolve to the listener's address (DNS rebinding), which shows in Host. Browsers mark with Sec-Fetch-Site
// where the listener is on loopback, and everywhere with the Origin of the page. Programs other than browsers send neither, and reach
// loopback as an address or as localhost.
func CrossSite(ctx *fasthttp.RequestCtx) bool {
	switch string(ctx.Request.Header.Peek("Sec-Fetch-Site")) {
	case "":
		if foreignOrigin(ctx) {
			return true
		}
	case "same-origin", "none":
	default:
		return true
	}
	return Peer(ctx).IsLoopback() && !localHost(string(ctx.Host()))
}

// foreignOrigin says that the request names an origin (RFC 6454 section 7) other than the one that it is sent to. "null" is a foreign one.
func foreignOrigin(ctx *fasthttp.RequestCtx) bool {
	origins := ctx.Request.Header.PeekAll("Origin")
	for _, origin := range origins {
		scheme, host, _ := strings.Cut(string(origin), "://")
		if host == "" || !strings.EqualFold(withoutPort(scheme, host), withoutPort(scheme, string(ctx.Host()))) {
			return true
		}
	}
	return false
}

// withoutPort drops the port that goes without saying.
func withoutPort(scheme, host string) string {
	switch strings.ToLower(scheme) {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
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
