package vars

import "bytes"

// QueryArg appends the first value of a query argument to dst, decoded: "+" is a space, %XX a byte, a "%" that starts no escape
// itself. Names are decoded too and compare exactly.
//
// An argument without "=" has no text in the contract's language but counts as true; its value here is "true", so that it is neither
// empty nor absent. Without the argument QueryArg returns dst as it was, and false.
func QueryArg(query []byte, name string, dst []byte) ([]byte, bool) {
	for len(query) > 0 {
		var pair []byte
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			pair, query = query, nil
		}
		key, value := pair, []byte(nil)
		equals := bytes.IndexByte(pair, '=')
		if equals >= 0 {
			key, value = pair[:equals], pair[equals+1:]
		}
		if len(key) == 0 || !decodedEqual(key, name) {
			continue
		}
		if equals < 0 {
			return append(dst, "true"...), true
		}
		return appendDecoded(dst, value), true
	}
	return dst, false
}

// decodedEqual compares an encoded name with a plain one.
func decodedEqual(encoded []byte, name string) bool {
	n := 0
	for len(encoded) > 0 {
		c, size := decode(encoded)
		if n == len(name) || name[n] != c {
			return false
		}
		encoded = encoded[size:]
		n++
	}
	return n == len(name)
}

func appendDecoded(dst, encoded []byte) []byte {
	for len(encoded) > 0 {
		c, size := decode(encoded)
		dst = append(dst, c)
		encoded = encoded[size:]
	}
	return dst
}

// decode returns the first decoded byte of a non-empty text and the number of bytes that stand for it.
func decode(encoded []byte) (c byte, size int) {
	c = encoded[0]
	switch {
	case c == '+':
		return ' ', 1
	case c == '%' && len(encoded) > 2:
		high, low := hexDigit(encoded[1]), hexDigit(encoded[2])
		if high < 16 && low < 16 {
			return high<<4 | low, 3
		}
	}
	return c, 1
}

// hexDigit returns the value of a hexadecimal digit, 16 for anything else.
func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 16
	}
}

// CookieValue returns a cookie from the value of a Cookie header, as a part of header. Names compare exactly; of several cookies with
// one name the last counts, as in APISIX. Quotes belong to the value.
func CookieValue(header []byte, name string) (value []byte, ok bool) {
	for len(header) > 0 {
		var pair []byte
		if i := bytes.IndexByte(header, ';'); i >= 0 {
			pair, header = header[:i], header[i+1:]
		} else {
			pair, header = header, nil
		}
		pair = bytes.Trim(pair, " \t")
		equals := bytes.IndexByte(pair, '=')
		if equals >= 0 && string(pair[:equals]) == name {
			value, ok = pair[equals+1:], true
		}
	}
	return value, ok
}

// HeaderNameEqual compares a header name from the wire with one that a Source was asked for: without regard to case, '-' and '_'
// being the same.
func HeaderNameEqual(headerName []byte, varName string) bool {
	if len(headerName) != len(varName) {
		return false
	}
	for i, c := range headerName {
		if foldHeaderByte(c) != foldHeaderByte(varName[i]) {
			return false
		}
	}
	return true
}

func foldHeaderByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '-':
		return '_'
	default:
		return c
	}
}
