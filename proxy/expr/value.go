package expr

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"
)

// parseNumber reads a value as the contract's numbers: decimal with optional fraction and exponent, or a hexadecimal integer, with a
// sign and white space around. The words for infinity and not-a-number are no numbers here.
func parseNumber(value []byte) (float64, bool) {
	value = bytes.Trim(value, " \t\n\v\f\r")
	digits := value
	if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
		digits = digits[1:]
	}
	if len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'x' {
		num, ok := parseHex(digits[2:])
		if value[0] == '-' {
			num = -num
		}
		return num, ok
	}
	// ParseFloat allocates its errors: nothing that isn't a number may reach it.
	if !isDecimal(digits) {
		return 0, false
	}
	num, _ := strconv.ParseFloat(view(value), 64) // what is left is a range error, whose result is infinite
	return num, true
}

// isDecimal says whether digits is an unsigned decimal number.
func isDecimal(digits []byte) bool {
	rest := bytes.TrimLeft(digits, "0123456789")
	count := len(digits) - len(rest)
	if len(rest) > 0 && rest[0] == '.' {
		fraction := rest[1:]
		rest = bytes.TrimLeft(fraction, "0123456789")
		count += len(fraction) - len(rest)
	}
	if count == 0 {
		return false
	}
	if len(rest) == 0 {
		return true
	}
	if rest[0]|0x20 != 'e' {
		return false
	}
	rest = rest[1:]
	if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') {
		rest = rest[1:]
	}
	return len(rest) > 0 && len(bytes.TrimLeft(rest, "0123456789")) == 0
}

func parseHex(digits []byte) (num float64, ok bool) {
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		num = num*16 + float64(c)
	}
	return num, true
}

// maxAddrText is the longest textual IPv6 address, one that ends in an IPv4 address.
const maxAddrText = 45

// parseAddr reads a value as an address without zone; an IPv4 address written as IPv6 counts as IPv4.
func parseAddr(value []byte) (netip.Addr, bool) {
	if bytes.IndexByte(value, ':') < 0 {
		return parseIPv4(value)
	}
	// ParseAddr allocates its errors; hardly anything that is no address gets that far.
	if len(value) < 2 || len(value) > maxAddrText {
		return netip.Addr{}, false
	}
	for _, c := range value {
		if c != '.' && c != ':' && ('0' > c || c > '9') && ('a' > c|0x20 || c|0x20 > 'f') {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(view(value))
	return addr.Unmap(), err == nil
}

// parseIPv4 reads four decimal numbers without leading zeros.
func parseIPv4(value []byte) (netip.Addr, bool) {
	var octets [4]byte
	for i := range octets {
		n, digits := 0, 0
		for digits < len(value) && '0' <= value[digits] && value[digits] <= '9' {
			if digits == 3 {
				return netip.Addr{}, false
			}
			n = n*10 + int(value[digits]-'0')
			digits++
		}
		if digits == 0 || n > 255 || digits > 1 && value[0] == '0' {
			return netip.Addr{}, false
		}
		octets[i], value = byte(n), value[digits:]
		if i == 3 {
			break
		}
		if len(value) == 0 || value[0] != '.' {
			return netip.Addr{}, false
		}
		value = value[1:]
	}
	return netip.AddrFrom4(octets), len(value) == 0
}

// parsePrefix reads an address or a network in CIDR form, whose host bits don't count.
func parsePrefix(s string) (netip.Prefix, bool) {
	if strings.Contains(s, "/") {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return netip.Prefix{}, false
		}
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		return prefix.Masked(), true
	}
	addr, ok := parseAddr([]byte(s))
	if !ok {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, addr.BitLen()), true
}

// view lends bytes to a function that wants a string and doesn't keep it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
