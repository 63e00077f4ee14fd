package route

import (
	"hash/maphash"
	"slices"
	"unsafe"
)

// fan is how many shelves a dict and how many pages a shelf has.
const fan = 64

// dict is a persistent hash table of buckets, keyed by a host pattern and a text under it. What a look-up costs at scale is memory that no
// cache of the processor holds. The index of a page has four bytes for a key, so that those of 100,000 keys stay in a cache and a key
// that isn't there costs next to nothing; the one miss that is left is the bucket, which has its key and its candidate in it.
//
// A dict is copied by assignment. An edit copies the shelf and the page of the key, and nothing else.
type dict[T any] struct {
	seed    maphash.Seed
	shelves [fan]*shelf[T]
}

// shelf is the pages for the keys with one prefix of the hash. It is immutable but for the edit that owns it.
type shelf[T any] struct {
	owner *owner
	owned uint64 // bit n: the owner may change page n in place too
	pages [fan]page[T]
}

// page holds buckets, in any order, and an index of them. A cell of the index has the low 16 bits of a hash in its upper half and the
// position of the bucket plus one in the lower; 0 is a free cell. Collisions go to the next free cell, of which there always is one.
type page[T any] struct {
	index   []uint32
	buckets []bucket[T]
}

// maxPage is how many buckets the index can count: 268 million in all, which no machine has room for.
const maxPage = 1<<16 - 1

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

// Of a hash the top 6 bits choose the shelf, the next 6 the page; 32 others say at which cell the search starts.
func shelfOf(hash uint64) uint64 { return hash >> 58 }
func pageOf(hash uint64) uint64  { return hash >> 52 & (fan - 1) }
func cellOf(hash uint64, cells int) int {
	return int(hash >> 16 & (1<<32 - 1) * uint64(cells) >> 32)
}

// find returns the bucket of k, or nil.
func (d *dict[T]) find(k dictKey) *bucket[T] {
	s := d.shelves[shelfOf(k.hash)]
	if s == nil {
		return nil
	}
	p := &s.pages[pageOf(k.hash)]
	if len(p.index) == 0 {
		return nil
	}
	for i := cellOf(k.hash, len(p.index)); ; {
		cell := p.index[i]
		if cell == 0 {
			return nil
		}
		if uint16(cell>>16) == uint16(k.hash) {
			if b := &p.buckets[cell&maxPage-1]; b.is(&k) {
				return b
			}
		}
		if i++; i == len(p.index) {
			i = 0
		}
	}
}

// edit lets change work on the bucket of k, an empty one if there is none. change says whether it is to be kept; it must not keep the
// address.
func (d *dict[T]) edit(own *owner, k dictKey, change func(*bucket[T]) bool) {
	old := d.find(k)
	if old == nil {
		b := emptyBucket[T](&k)
		if change(&b) {
			d.page(own, k.hash, 1).add(b, k.hash)
		}
		return
	}
	p := d.page(own, k.hash, 0)
	i := slices.IndexFunc(p.buckets, func(b bucket[T]) bool { return b.is(&k) })
	if !change(&p.buckets[i]) {
		p.buckets = slices.Delete(p.buckets, i, i+1)
		d.reindex(p)
		if len(p.buckets) == 0 {
			d.sweep(k.hash)
		}
	}
}

// page returns the page of a hash, ready to be changed and with room for more further buckets.
func (d *dict[T]) page(own *owner, hash uint64, more int) *page[T] {
	s := d.shelves[shelfOf(hash)]
	if s == nil || s.owner != own {
		c := &shelf[T]{owner: own}
		if s != nil {
			c.pages = s.pages
		}
		s = c
		d.shelves[shelfOf(hash)] = s
	}
	n := pageOf(hash)
	p := &s.pages[n]
	want := len(p.buckets) + more
	mine := s.owned>>n&1 != 0
	switch {
	case !mine:
		p.buckets = append(make([]bucket[T], 0, want), p.buckets...)
	case want > cap(p.buckets):
		p.buckets = append(make([]bucket[T], 0, want+want/8+1), p.buckets...)
	}
	if want*4 > len(p.index)*3 {
		p.index = make([]uint32, want*16/9+2)
		d.reindex(p)
	} else if !mine {
		p.index = slices.Clone(p.index)
	}
	s.owned |= 1 << n
	return p
}

// reindex fills the index anew.
func (d *dict[T]) reindex(p *page[T]) {
	clear(p.index)
	for i := range p.buckets {
		host, text := p.buckets[i].key()
		k := d.keyOf(p.buckets[i].slot, host, text)
		p.note(k.hash, i)
	}
}

// add appends a bucket to a page that has room for it.
func (p *page[T]) add(b bucket[T], hash uint64) {
	p.buckets = append(p.buckets, b)
	p.note(hash, len(p.buckets)-1)
}

func (p *page[T]) note(hash uint64, position int) {
	i := cellOf(hash, len(p.index))
	for p.index[i] != 0 {
		if i++; i == len(p.index) {
			i = 0
		}
	}
	p.index[i] = uint32(hash)<<16 | uint32(position+1)
}

// sweep drops the empty page of a hash, and its shelf with the last one.
func (d *dict[T]) sweep(hash uint64) {
	s := d.shelves[shelfOf(hash)]
	s.pages[pageOf(hash)] = page[T]{}
	for i := range s.pages {
		if len(s.pages[i].buckets) > 0 {
			return
		}
	}
	d.shelves[shelfOf(hash)] = nil
}

// vacant reports whether d is empty.
func (d *dict[T]) vacant() bool { return d.shelves == [fan]*shelf[T]{} }
