package snapshot

import (
	"crypto/subtle"
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// trie is a persistent map from byte strings to values: with and without return a new trie that shares all but one path with the old
// one, which readers may go on using. A look-up costs the same however many entries there are, to within a level per factor of 32, and
// allocates nothing. The zero value is not usable: all tries of one lineage share the seed that newTrie draws.
type trie[V any] struct {
	seed maphash.Seed
	root *trieNode[V]
	size int
}

// trieNode has up to 32 children, one for each bit of filled; a child is a node below or a list of entries with the same hash bits.
type trieNode[V any] struct {
	filled   uint32
	children []trieChild[V]
}

type trieChild[V any] struct {
	node *trieNode[V]
	leaf *trieLeaf[V]
}

// trieLeaf is one entry; next has the same hash and another key.
type trieLeaf[V any] struct {
	hash  uint64
	key   string
	value V
	next  *trieLeaf[V]
}

const (
	trieBits   = 5
	trieLevels = 64 / trieBits // below, entries are chained
)

func newTrie[V any]() trie[V] { return trie[V]{seed: maphash.MakeSeed()} }

// get returns the value under key. Keys are compared in constant time, so that they can be secrets.
func (t *trie[V]) get(key []byte) (v V, ok bool) {
	hash := maphash.Bytes(t.seed, key)
	n := t.root
	for shift := 0; n != nil; shift += trieBits {
		bit := uint32(1) << (hash >> shift & 31)
		if n.filled&bit == 0 {
			return v, false
		}
		c := &n.children[bits.OnesCount32(n.filled&(bit-1))]
		for l := c.leaf; l != nil; l = l.next {
			if l.hash == hash && equalSecret(key, l.key) {
				return l.value, true
			}
		}
		n = c.node
	}
	return v, false
}

// getString is get for keys that are strings.
func (t *trie[V]) getString(key string) (v V, ok bool) {
	return t.get(unsafe.Slice(unsafe.StringData(key), len(key))) // get does not keep or change it
}

// equalSecret compares in a time that depends on the lengths alone.
func equalSecret(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	var diff byte
	for i := range a {
		diff |= a[i] ^ b[i]
	}
	return subtle.ConstantTimeByteEq(diff, 0) == 1
}

// with returns a trie that has value under key.
func (t trie[V]) with(key string, value V) trie[V] {
	leaf := &trieLeaf[V]{hash: maphash.String(t.seed, key), key: key, value: value}
	if _, has := t.getString(key); !has {
		t.size++
	}
	t.root = t.root.with(leaf, 0)
	return t
}

func (n *trieNode[V]) with(leaf *trieLeaf[V], level int) *trieNode[V] {
	bit := uint32(1) << (leaf.hash >> (level * trieBits) & 31)
	if n == nil {
		return &trieNode[V]{bit, []trieChild[V]{{leaf: leaf}}}
	}
	i := bits.OnesCount32(n.filled & (bit - 1))
	next := &trieNode[V]{filled: n.filled | bit}
	if n.filled&bit == 0 {
		next.children = make([]trieChild[V], len(n.children)+1)
		copy(next.children, n.children[:i])
		next.children[i].leaf = leaf
		copy(next.children[i+1:], n.children[i:])
		return next
	}
	next.children = append([]trieChild[V](nil), n.children...)
	c := &next.children[i]
	switch {
	case c.node != nil:
		c.node = c.node.with(leaf, level+1)
	case c.leaf.hash == leaf.hash || level+1 == trieLevels:
		c.leaf = c.leaf.with(leaf)
	default:
		var below *trieNode[V]
		for l := c.leaf; l != nil; l = l.next {
			below = below.with(&trieLeaf[V]{l.hash, l.key, l.value, nil}, level+1)
		}
		*c = trieChild[V]{node: below.with(leaf, level+1)}
	}
	return next
}

// with returns the list with leaf in the place of the entry of its key, if there is one.
func (l *trieLeaf[V]) with(leaf *trieLeaf[V]) *trieLeaf[V] {
	list := &trieLeaf[V]{leaf.hash, leaf.key, leaf.value, nil}
	for ; l != nil; l = l.next {
		if l.key != leaf.key {
			list.next = &trieLeaf[V]{l.hash, l.key, l.value, list.next}
		}
	}
	return list
}

// without returns a trie that has nothing under key.
func (t trie[V]) without(key string) trie[V] {
	if _, has := t.getString(key); !has {
		return t
	}
	t.size--
	t.root = t.root.without(maphash.String(t.seed, key), key, 0)
	return t
}

// without returns nil when nothing is left. key is there.
func (n *trieNode[V]) without(hash uint64, key string, level int) *trieNode[V] {
	bit := uint32(1) << (hash >> (level * trieBits) & 31)
	i := bits.OnesCount32(n.filled & (bit - 1))
	child := n.children[i]
	if child.node != nil {
		child.node = child.node.without(hash, key, level+1)
	} else {
		var rest *trieLeaf[V]
		for l := child.leaf; l != nil; l = l.next {
			if l.key != key {
				rest = &trieLeaf[V]{l.hash, l.key, l.value, rest}
			}
		}
		child.leaf = rest
	}
	if child.node != nil || child.leaf != nil {
		next := &trieNode[V]{n.filled, append([]trieChild[V](nil), n.children...)}
		next.children[i] = child
		return next
	}
	if len(n.children) == 1 {
		return nil
	}
	next := &trieNode[V]{n.filled &^ bit, make([]trieChild[V], 0, len(n.children)-1)}
	next.children = append(append(next.children, n.children[:i]...), n.children[i+1:]...)
	return next
}
