package snapshot

import (
	"crypto/subtle"
	"hash/maphash"
	"unsafe"
)

// trie is a persistent map from byte strings to values: with and without return a new trie that shares all but one page with the old
// one, which readers may go on using. It is two levels of branches over the bits of a hash, and below them pages: tables of entries with
// an index. What a look-up costs when there are many is memory that no cache of the processor holds. Branches and index are small; the
// one miss that is left is the entry, which has its key in it. A look-up allocates nothing. The zero value is not usable: all tries of one
// lineage share the seed that newTrie draws.
type trie[V any] struct {
	seed  maphash.Seed
	root  *trieRoot[V]
	size  int
	owner *trieOwner // of a draft, else nil
}

// trieOwner marks what one draft has made itself and may change in place. The byte keeps the addresses of two owners distinct.
type trieOwner struct{ _ byte }

// trieFan is how many branches the root, and how many pages a branch has.
const trieFan = 64

type trieRoot[V any] struct {
	owner    *trieOwner
	branches [trieFan]*trieBranch[V]
}

type trieBranch[V any] struct {
	owner  *trieOwner
	owned  uint64 // bit n: the owner may change page n in place too
	filled uint64 // bit n: page n has entries
	pages  [trieFan]triePage[V]
}

// triePage has its entries in any order, and an index of them. A cell of the index has the low 16 bits of a hash in its upper half and
// the position of the entry plus one in the lower; 0 is a free cell. Collisions go to the next free cell, of which there always is one.
type triePage[V any] struct {
	index   []uint32
	entries []trieEntry[V]
}

// maxEntries is how many entries the index of a page can count: 268 million in all.
const maxEntries = 1<<16 - 1

// trieShort is how many bytes of key an entry holds itself: with a value of one word it then fills a cache line.
const trieShort = 44

type trieEntry[V any] struct {
	value V
	long  *byte // the key, when it is longer
	size  uint32
	short [trieShort]byte
}

func newTrie[V any]() trie[V] { return trie[V]{seed: maphash.MakeSeed()} }

// draft returns a trie with the same entries for a series of changes, of which only the last result is used: they do not copy what an
// earlier one of them has copied. No other goroutine may read a draft.
func (t trie[V]) draft() trie[V] {
	t.owner = new(trieOwner)
	return t
}

// final ends a draft.
func (t trie[V]) final() trie[V] {
	t.owner = nil
	return t
}

// Of a hash the top 6 bits choose the branch, the next 6 the page; 32 others say at which cell the search starts.
func branchOf(hash uint64) uint64 { return hash >> 58 }
func pageOf(hash uint64) uint64   { return hash >> 52 & (trieFan - 1) }
func cellOf(hash uint64, cells int) int {
	return int(hash >> 16 & (1<<32 - 1) * uint64(cells) >> 32)
}

// get returns the value under key. Keys are compared in constant time, so that they can be secrets.
func (t *trie[V]) get(key []byte) (v V, ok bool) {
	if t.root == nil {
		return v, false
	}
	hash := maphash.Bytes(t.seed, key)
	b := t.root.branches[branchOf(hash)]
	if b == nil {
		return v, false
	}
	p := &b.pages[pageOf(hash)]
	if i := p.find(hash, key); i >= 0 {
		return p.entries[i].value, true
	}
	return v, false
}

// getString is get for keys that are strings.
func (t *trie[V]) getString(key string) (v V, ok bool) { return t.get(bytesOf(key)) }

// bytesOf lends the bytes of s, which must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// find returns the position of the entry with the key, -1 when there is none.
func (p *triePage[V]) find(hash uint64, key []byte) int {
	if len(p.index) == 0 {
		return -1
	}
	for i := cellOf(hash, len(p.index)); ; {
		cell := p.index[i]
		if cell == 0 {
			return -1
		}
		if uint16(cell>>16) == uint16(hash) {
			if n := int(cell&maxEntries) - 1; equalSecret(p.entries[n].key(), key) {
				return n
			}
		}
		if i++; i == len(p.index) {
			i = 0
		}
	}
}

func (e *trieEntry[V]) key() []byte {
	if e.size <= trieShort {
		return e.short[:e.size]
	}
	return unsafe.Slice(e.long, e.size)
}

// equalSecret compares in a time that depends on the lengths alone.
func equalSecret(a, b []byte) bool {
	return subtle.ConstantTimeCompare(a, b) == 1
}

// with returns a trie that has value under key.
func (t trie[V]) with(key string, value V) trie[V] {
	hash := maphash.String(t.seed, key)
	b := t.branch(hash)
	p := &b.pages[pageOf(hash)]
	if i := p.find(hash, bytesOf(key)); i >= 0 {
		b.page(t.seed, hash, 0).entries[i].value = value
		return t
	}
	e := trieEntry[V]{value: value, size: uint32(len(key))}
	if len(key) <= trieShort {
		copy(e.short[:], key)
	} else {
		e.long = unsafe.StringData(key)
	}
	p = b.page(t.seed, hash, 1)
	p.entries = append(p.entries, e)
	p.note(hash, len(p.entries)-1)
	t.size++
	return t
}

// without returns a trie that has nothing under key.
func (t trie[V]) without(key string) trie[V] {
	if _, has := t.getString(key); !has {
		return t
	}
	hash := maphash.String(t.seed, key)
	b := t.branch(hash)
	p := b.page(t.seed, hash, 0)
	i, last := p.find(hash, bytesOf(key)), len(p.entries)-1
	p.entries[i] = p.entries[last]
	p.entries[last] = trieEntry[V]{}
	p.entries = p.entries[:last]
	p.reindex(t.seed)
	t.size--
	if last == 0 {
		*p = triePage[V]{}
		if b.filled &^= 1 << pageOf(hash); b.filled == 0 {
			t.root.branches[branchOf(hash)] = nil
		}
	}
	return t
}

// branch returns the branch of a hash, ready to be changed, in a root that t has for itself.
func (t *trie[V]) branch(hash uint64) *trieBranch[V] {
	if t.root == nil || t.root.owner != t.owner || t.owner == nil {
		next := &trieRoot[V]{owner: t.owner}
		if t.root != nil {
			next.branches = t.root.branches
		}
		t.root = next
	}
	at := &t.root.branches[branchOf(hash)]
	if b := *at; b == nil || b.owner != t.owner || t.owner == nil {
		next := &trieBranch[V]{owner: t.owner}
		if b != nil {
			next.pages, next.filled = b.pages, b.filled
		}
		*at = next
	}
	return *at
}

// page returns the page of a hash, ready to be changed and with room for more further entries.
func (b *trieBranch[V]) page(seed maphash.Seed, hash uint64, more int) *triePage[V] {
	n := pageOf(hash)
	p, mine := &b.pages[n], b.owned>>n&1 != 0
	want := len(p.entries) + more
	switch {
	case !mine:
		p.entries = append(make([]trieEntry[V], 0, want), p.entries...)
	case want > cap(p.entries):
		p.entries = append(make([]trieEntry[V], 0, want+want/8+1), p.entries...)
	}
	if want*4 > len(p.index)*3 {
		p.index = make([]uint32, want*16/9+2)
		p.reindex(seed)
	} else if !mine {
		p.index = append([]uint32(nil), p.index...)
	}
	b.owned |= 1 << n
	b.filled |= 1 << n
	return p
}

// reindex fills the index anew.
func (p *triePage[V]) reindex(seed maphash.Seed) {
	clear(p.index)
	for i := range p.entries {
		p.note(maphash.Bytes(seed, p.entries[i].key()), i)
	}
}

func (p *triePage[V]) note(hash uint64, position int) {
	i := cellOf(hash, len(p.index))
	for p.index[i] != 0 {
		if i++; i == len(p.index) {
			i = 0
		}
	}
	p.index[i] = uint32(hash)<<16 | uint32(position+1)
}
