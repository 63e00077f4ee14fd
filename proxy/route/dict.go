package route

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"unsafe"
)

// fan is how many shelves a dict has.
const fan = 64

// dict is a persistent hash table of buckets, keyed by a host pattern and a text under it. What a look-up costs at scale is memory that no
// cache of the processor holds. Of a place the table keeps one byte apart from the bucket, so that those of 100,000 buckets stay in a
// cache and a key that isn't there costs next to nothing; the one miss that is left is the bucket, which has its key and its candidate in
// it.
//
// A dict is copied by assignment. An edit copies what leads to one tray of a shelf, and that tray.
type dict[T any] struct {
	seed    maphash.Seed
	shelves [fan]*shelf[T]
}

// shelf is a hash table of its own, for the keys with one prefix of the hash. Its places are in rows. A key is looked for from the row that
// its hash says on, until there is one with a free place, as there always is. A shelf is immutable but for the edit that owns it.
type shelf[T any] struct {
	rows  []row
	trays []*tray[T] // the buckets of the places, nil for one that never had any
	used  int        // places with a bucket
	gone  int        // places that were given up where searches must not end
	owner *owner
	owned []bool // trays that the owner may change in place too
}

// row has a byte for each of eight places: free, given up, or some bits of the hash of its bucket's key, which are its tag.
type row uint64

const (
	rowSize = 8

	freePlace = 0
	gonePlace = 1
	firstTag  = 2

	lowBits  row = 0x0101010101010101 // of each byte
	highBits row = 0x8080808080808080
)

// with returns the places of r that have tag, as the high bits of their bytes. Behind the first it may name some that have not.
func (r row) with(tag uint8) row {
	r ^= lowBits * row(tag)
	return (r - lowBits) &^ r & highBits
}

func (r row) hasFree() bool       { return r.with(freePlace) != 0 }
func (r row) tag(place int) uint8 { return uint8(r >> (place * 8)) }

func (r *row) set(place int, tag uint8) {
	*r = *r&^(0xff<<(place*8)) | row(tag)<<(place*8)
}

// first returns the first place of a set of them, rowSize for none.
func (r row) first() int { return bits.TrailingZeros64(uint64(r)) / 8 }

// tray is as much as an edit copies.
type tray[T any] [traySize]bucket[T]

const traySize = 2 * rowSize

// dictKey is a key with its hash.
type dictKey struct {
	hash       uint64
	slot       slot
	host, text []byte
}

// newKey makes a key from parts of which the hashes are known.
func newKey(s slot, h hostKey, text []byte, textHash uint64) dictKey {
	return dictKey{(h.hash+uint64(s))*0x9e3779b97f4a7c15 + textHash, s, h.host, text}
}

// keyOf makes the key of a text under a host.
func (d *dict[T]) keyOf(s slot, host, text []byte) dictKey {
	return newKey(s, hostKey{host, maphash.Bytes(d.seed, host)}, text, maphash.Bytes(d.seed, text))
}

// bytesOf lends the bytes of s, which must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// Of a hash the top 6 bits choose the shelf, the lowest 8 are the tag, and 32 between say at which row the search starts.
func shelfOf(hash uint64) uint64 { return hash >> 58 }
func tagOf(hash uint64) uint8    { return max(uint8(hash), firstTag) }
func rowOf(hash uint64, rows int) int {
	return int(hash >> 16 & (1<<32 - 1) * uint64(rows) >> 32)
}

// find returns the bucket of k, or nil.
func (d *dict[T]) find(k dictKey) *bucket[T] {
	s := d.shelves[shelfOf(k.hash)]
	if s == nil {
		return nil
	}
	if i := s.find(&k); i >= 0 {
		return s.at(i)
	}
	return nil
}

// find returns the place of k, -1 when it has none.
func (s *shelf[T]) find(k *dictKey) int {
	tag := tagOf(k.hash)
	for n := rowOf(k.hash, len(s.rows)); ; {
		r := s.rows[n]
		for m := r.with(tag); m != 0; m &= m - 1 {
			if i := n*rowSize + m.first(); s.at(i).is(k) {
				return i
			}
		}
		if r.hasFree() {
			return -1
		}
		if n++; n == len(s.rows) {
			n = 0
		}
	}
}

// at returns the bucket of a place.
func (s *shelf[T]) at(i int) *bucket[T] { return &s.trays[i/traySize][i%traySize] }

// edit lets change work on the bucket of k, an empty one if there is none. change says whether it is to be kept; it must not keep the
// address.
func (d *dict[T]) edit(own *owner, k dictKey, change func(*bucket[T]) bool) {
	if d.find(k) == nil {
		b := emptyBucket[T](&k)
		if change(&b) {
			s := d.shelf(own, k.hash)
			if s.full() {
				s.rebuild(d, max(s.used+1, own.share))
			}
			s.add(&b, k.hash)
		}
		return
	}
	s := d.shelf(own, k.hash)
	i := s.find(&k)
	if b := s.writable(i); !change(b) {
		*b = bucket[T]{}
		switch s.drop(i); {
		case s.used == 0:
			d.shelves[shelfOf(k.hash)] = nil
		case s.sparse():
			s.rebuild(d, s.used)
		}
	}
}

// shelf returns the shelf of a hash, ready to be changed.
func (d *dict[T]) shelf(own *owner, hash uint64) *shelf[T] {
	at := &d.shelves[shelfOf(hash)]
	switch s := *at; {
	case s == nil:
		*at = &shelf[T]{owner: own}
	case s.owner != own:
		*at = &shelf[T]{
			rows: slices.Clone(s.rows), trays: slices.Clone(s.trays), used: s.used, gone: s.gone,
			owner: own, owned: make([]bool, len(s.trays)),
		}
	}
	return *at
}

// full says that there is no place for another bucket: searches get long when there are few free ones.
func (s *shelf[T]) full() bool { return (s.used+s.gone+1)*8 > len(s.rows)*rowSize*7 }

// sparse says that most of the memory is for nothing.
func (s *shelf[T]) sparse() bool { return s.used*3+traySize < len(s.rows)*rowSize }

// rebuild makes the shelf one of which a quarter of the places is free when it has count buckets.
func (s *shelf[T]) rebuild(d *dict[T], count int) {
	old := *s
	n := ((count+1)*4/3 + traySize - 1) / traySize
	*s = shelf[T]{rows: make([]row, n*traySize/rowSize), trays: make([]*tray[T], n), owner: old.owner, owned: make([]bool, n)}
	for n, r := range old.rows {
		for place := range rowSize {
			if r.tag(place) >= firstTag {
				b := old.at(n*rowSize + place)
				host, text := b.key()
				k := d.keyOf(b.slot, host, text)
				s.add(b, k.hash)
			}
		}
	}
}

// add takes up a bucket whose key has no place.
func (s *shelf[T]) add(b *bucket[T], hash uint64) {
	n := rowOf(hash, len(s.rows))
	place := rowSize
	for {
		r := s.rows[n]
		if place = min(r.with(freePlace).first(), r.with(gonePlace).first()); place < rowSize {
			break
		}
		if n++; n == len(s.rows) {
			n = 0
		}
	}
	if s.rows[n].tag(place) == gonePlace {
		s.gone--
	}
	s.rows[n].set(place, tagOf(hash))
	s.used++
	*s.writable(n*rowSize + place) = *b
}

// drop gives up a place. Where its row has a free one no search goes on to the next.
func (s *shelf[T]) drop(i int) {
	r := &s.rows[i/rowSize]
	s.used--
	if r.hasFree() {
		r.set(i%rowSize, freePlace)
		return
	}
	r.set(i%rowSize, gonePlace)
	s.gone++
}

// writable returns the bucket of a place, ready to be changed.
func (s *shelf[T]) writable(i int) *bucket[T] {
	n := i / traySize
	if !s.owned[n] {
		c := new(tray[T])
		if s.trays[n] != nil {
			*c = *s.trays[n]
		}
		s.trays[n], s.owned[n] = c, true
	}
	return s.at(i)
}

// vacant reports whether d is empty.
func (d *dict[T]) vacant() bool { return d.shelves == [fan]*shelf[T]{} }
