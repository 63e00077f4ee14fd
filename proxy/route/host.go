package route

import "bytes"

// HostError says why an authority was refused. Every HostError is ErrBadHost in the sense of errors.Is.
type HostError uint8

const (
	ErrBadHost   HostError = iota // any of the following
	ErrHostEmpty                  // no host
	ErrHostByte                   // a byte that no host name has, user information, an empty label
	ErrHostIPv6                   // not an IPv6 address between the brackets
	ErrHostPort                   // not a number from 0 to 65535
	ErrHostLong                   // more than MaxHost bytes
)

// MaxHost is the longest authority that AppendHost takes: a DNS name, a trailing dot and a port.
const MaxHost = 260

func (e HostError) Error() string {
	switch e {
	case ErrHostEmpty:
		return "route: empty host"
	case ErrHostByte:
		return "route: invalid byte in the host"
	case ErrHostIPv6:
		return "route: invalid IPv6 address in the host"
	case ErrHostPort:
		return "route: invalid port in the host"
	case ErrHostLong:
		return "route: host is too long"
	}
	return "route: bad host"
}

// Is makes every HostError match ErrBadHost.
func (e HostError) Is(target error) bool {
	return target == ErrBadHost || target == e
}

// AppendHost checks one authority (a Host header or the authority of an absolute-form target) and returns it in the two forms that
// rules are compared with, both lower-cased: hostport as it was sent, host without the port and one trailing dot. Both are parts of
// what was appended to dst and share its storage.
//
// It takes `uri-host [":" port]` of RFC 9110 section 7.2 with a registered name, an IPv4 address or a bracketed IPv6 address with
// an optional zone (RFC 6874); the port may be empty. Stricter than the RFC, it refuses what has no place in a host name or hints at merged header lines:
// percent escapes, commas, empty labels, more than MaxHost bytes. Errors are of type HostError. raw and dst must not
// overlap.
func AppendHost(dst, raw []byte) (host, hostport []byte, err error) {
	if len(raw) == 0 {
		return nil, nil, ErrHostEmpty
	}
	if len(raw) > MaxHost {
		return nil, nil, ErrHostLong
	}
	start := len(dst)
	for _, c := range raw {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	hostport = dst[start:len(dst):len(dst)]
	var n int // length of the host
	if hostport[0] == '[' {
		n = bytes.IndexByte(hostport, ']') + 1
		if n == 0 || !bracketed(hostport[1:n-1]) {
			return nil, nil, ErrHostIPv6
		}
		host = hostport[:n]
	} else {
		n = bytes.IndexByte(hostport, ':')
		if n < 0 {
			n = len(hostport)
		}
		if host, err = regName(hostport[:n]); err != nil {
			return nil, nil, err
		}
	}
	if n < len(hostport) && !port(hostport[n:]) {
		return nil, nil, ErrHostPort
	}
	return host, hostport, nil
}

// regName checks a host name or IPv4 address and returns it without one trailing dot.
func regName(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, ErrHostEmpty
	}
	label := 0 // bytes of the current label
	for _, c := range b {
		if c == '.' {
			if label == 0 {
				return nil, ErrHostByte
			}
			label = 0
			continue
		}
		if !nameByte(c) {
			return nil, ErrHostByte
		}
		label++
	}
	if label == 0 {
		b = b[:len(b)-1]
	}
	return b, nil
}

// nameByte reports whether c is an unreserved byte or a sub-delimiter other than the comma (RFC 3986 section 2), upper case letters left out.
func nameByte(c byte) bool {
	switch c {
	case '-', '_', '~', '!', '$', '&', '\'', '(', ')', '*', '+', ';', '=':
		return true
	}
	return alnum(c)
}

// port checks ":" *DIGIT with a value up to 65535.
func port(b []byte) bool {
	if b[0] != ':' || len(b) > 6 {
		return false
	}
	value := 0
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
		value = value*10 + int(c-'0')
	}
	return value <= 65535
}

// bracketed checks what stands between the brackets: IPv6address [ "%25" zone ].
func bracketed(b []byte) bool {
	if i := bytes.IndexByte(b, '%'); i >= 0 {
		zone, found := bytes.CutPrefix(b[i:], []byte("%25"))
		if !found || len(zone) == 0 {
			return false
		}
		for _, c := range zone {
			if c != '.' && c != '-' && c != '_' && c != '~' && !alnum(c) {
				return false
			}
		}
		b = b[:i]
	}
	return ipv6(b)
}

func alnum(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

// ipv6 checks an IPv6 address in any of its text forms (RFC 3986 section 3.2.2). It is here because netip allocates for errors and
// needs a string.
func ipv6(b []byte) bool {
	groups, gap := 0, false
	if bytes.HasPrefix(b, []byte("::")) {
		gap = true
		b = b[2:]
	}
	for len(b) > 0 {
		n := 0
		for n < len(b) && unhex(b[n]) <= 0xf {
			n++
		}
		if n < len(b) && b[n] == '.' {
			return ipv4(b) && fits(groups+2, gap)
		}
		if n == 0 || n > 4 {
			return false
		}
		groups++
		b = b[n:]
		if len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return false
		}
		if b[1] == ':' {
			if gap {
				return false
			}
			gap = true
			b = b[1:]
		}
		b = b[1:]
	}
	return fits(groups, gap)
}

// fits reports whether that many 16-bit groups, with or without a "::", make an address.
func fits(groups int, gap bool) bool {
	return !gap && groups == 8 || gap && groups < 8
}

// ipv4 checks the dotted form: four numbers up to 255 without leading zeros.
func ipv4(b []byte) bool {
	for i := range 4 {
		n, value := 0, 0
		for n < len(b) && n < 4 && '0' <= b[n] && b[n] <= '9' {
			value = value*10 + int(b[n]-'0')
			n++
		}
		if n == 0 || n > 3 || value > 255 || n > 1 && b[0] == '0' {
			return false
		}
		b = b[n:]
		if i == 3 {
			return len(b) == 0
		}
		if len(b) == 0 || b[0] != '.' {
			return false
		}
		b = b[1:]
	}
	return false
}
