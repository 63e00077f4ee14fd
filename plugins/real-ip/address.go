package realip

import (
	"bytes"
	"net/netip"
	"unsafe"
)

// maxAddr is the longest text of an IPv6 address, one that ends in an IPv4 address.
const maxAddr = 45

// parseClient reads an address with or without a port: 1.2.3.4, 1.2.3.4:80, ::1, [::1], [::1]:80. A zone is free text and refused. Port 0
// says that there is none.
func parseClient(text []byte) (a netip.Addr, port uint16, ok bool) {
	host, tail := text, []byte(nil)
	switch colon := bytes.IndexByte(text, ':'); {
	case len(text) > 0 && text[0] == '[':
		end := bytes.IndexByte(text, ']')
		if end < 0 {
			return a, 0, false
		}
		host, tail = text[1:end], text[end+1:]
		if bytes.IndexByte(host, ':') < 0 { // brackets are for IPv6
			return a, 0, false
		}
	case colon >= 0 && colon == bytes.LastIndexByte(text, ':'):
		host, tail = text[:colon], text[colon:]
	}
	if len(tail) > 0 {
		if port, ok = parsePort(tail); !ok {
			return a, 0, false
		}
	}
	if len(host) < 2 || len(host) > maxAddr || !addressBytes(host) {
		return a, 0, false
	}
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(host), len(host))) // read only, and only during this call
	return a.Unmap(), port, err == nil
}

// addressBytes keeps most of what is no address away from the parser, which allocates its errors.
func addressBytes(b []byte) bool {
	for _, c := range b {
		if c != '.' && c != ':' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

// parsePort reads ":1" to ":65535".
func parsePort(b []byte) (uint16, bool) {
	if len(b) < 2 || len(b) > 6 || b[0] != ':' {
		return 0, false
	}
	n := 0
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), n >= 1 && n <= 65535
}
