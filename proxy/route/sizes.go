package route

import (
	"math/bits"
	"slices"
)

// sizes knows how long the stored prefixes are, so that few prefixes of a path need to be looked up. Nearly all of them end in a '/',
// and those are looked for only where the path has one. The zero sizes are of no prefixes.
type sizes struct {
	slash  uint64      // bit n: there is a prefix that ends in '/' with a size of n modulo 64
	other  uint64      // the same for any other prefix
	counts []sizeCount // longest first; never changed in place
}

type sizeCount struct {
	size  uint16
	slash bool
	n     uint32
}

// change notes that text was stored (by is 1) or dropped (-1).
func (z *sizes) change(text string, by int) {
	size := uint16(len(text))
	slash := size > 0 && text[size-1] == '/'
	i := slices.IndexFunc(z.counts, func(c sizeCount) bool { return c.size < size || c.size == size && c.slash == slash })
	next := make([]sizeCount, 0, len(z.counts)+1)
	switch {
	case i < 0:
		next = append(append(next, z.counts...), sizeCount{size, slash, 1})
	case z.counts[i].size != size:
		next = append(append(append(next, z.counts[:i]...), sizeCount{size, slash, 1}), z.counts[i:]...)
	default:
		next = append(next, z.counts...)
		if next[i].n += uint32(by); next[i].n == 0 {
			next = slices.Delete(next, i, i+1)
		}
	}
	z.counts, z.slash, z.other = next, 0, 0
	for _, c := range next {
		if c.slash {
			z.slash |= 1 << (c.size & 63)
		} else {
			z.other |= 1 << (c.size & 63)
		}
	}
}

// longest returns the size of the longest prefix of path that may be stored, -1 for none.
func (z *sizes) longest(path []byte) int {
	limit := len(path)
	if limit > 63 && len(z.counts) > 0 {
		limit = min(limit, int(z.counts[0].size))
	}
	return z.upTo(path, limit)
}

// upTo is longest among the prefixes of at most limit bytes.
func (z *sizes) upTo(path []byte, limit int) int {
	stored := z.slash | z.other
	for limit >= 0 {
		limit -= bits.LeadingZeros64(bits.RotateLeft64(stored, 63-limit&63))
		if stored == 0 || limit < 0 {
			break
		}
		if z.other>>(limit&63)&1 != 0 || limit > 0 && path[limit-1] == '/' {
			return limit
		}
		limit--
	}
	return -1
}
