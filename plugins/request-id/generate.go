package requestid

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"
)

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// generator returns what appends a fresh id. Random bits are those of the runtime's ChaCha8 generators, one for each thread: no lock, and
// nobody who knows some ids can compute others.
func generator(c Config) func(dst []byte, now time.Time) []byte {
	switch c.Algorithm {
	case "uuidv7":
		return appendUUIDv7
	case "nanoid":
		return appendNanoID
	case "ksuid":
		return appendKSUID
	case "range_id":
		set, length := c.RangeSet, c.RangeLength
		return func(dst []byte, _ time.Time) []byte {
			for range length {
				dst = append(dst, set[rand.IntN(len(set))])
			}
			return dst
		}
	default:
		return appendUUIDv4
	}
}

func randomBytes() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	return b
}

// appendUUIDv4 appends a UUID of 122 random bits (RFC 9562 section 5.4).
func appendUUIDv4(dst []byte, _ time.Time) []byte {
	return appendUUID(dst, randomBytes(), 4)
}

// appendUUIDv7 appends a UUID that begins with the time in milliseconds (RFC 9562 section 5.7).
func appendUUIDv7(dst []byte, now time.Time) []byte {
	b := randomBytes()
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(b[:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	return appendUUID(dst, b, 7)
}

// appendUUID writes b with the version and variant put in (RFC 9562 section 4).
func appendUUID(dst []byte, b [16]byte, version byte) []byte {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	dst = append(hex.AppendEncode(dst, b[:4]), '-')
	dst = append(hex.AppendEncode(dst, b[4:6]), '-')
	dst = append(hex.AppendEncode(dst, b[6:8]), '-')
	dst = append(hex.AppendEncode(dst, b[8:10]), '-')
	return hex.AppendEncode(dst, b[10:])
}

// appendNanoID appends 21 characters of 6 random bits each, all of which may stand in a URL.
func appendNanoID(dst []byte, _ time.Time) []byte {
	const alphabet, size, perDraw = alphanumeric + "_-", 21, 10
	for i := 0; i < size; {
		bits := rand.Uint64()
		for j := 0; j < perDraw && i < size; j++ {
			dst = append(dst, alphabet[bits&63])
			bits >>= 6
			i++
		}
	}
	return dst
}

// ksuidEpoch is the second from which a KSUID counts (2014-05-13).
const ksuidEpoch = 1400000000

// appendKSUID appends a KSUID: 32 bits of seconds and 128 random ones as 27 digits to the base of 62, which sort by time.
func appendKSUID(dst []byte, now time.Time) []byte {
	random := randomBytes()
	words := [5]uint32{uint32(now.Unix() - ksuidEpoch)}
	for i := range 4 {
		words[i+1] = binary.BigEndian.Uint32(random[4*i:])
	}
	return appendBase62(dst, words)
}

func appendBase62(dst []byte, words [5]uint32) []byte {
	const digits, size = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 27
	var text [size]byte
	for i := size - 1; i >= 0; i-- {
		rest := uint64(0)
		for w := range words {
			v := rest<<32 | uint64(words[w])
			words[w], rest = uint32(v/62), v%62
		}
		text[i] = digits[rest]
	}
	return append(dst, text[:]...)
}
