package snapshot

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

// trieKey makes keys of which some are longer than an entry.
func trieKey(i int) string { return strings.Repeat("k", i%60) + fmt.Sprint(i) }

// A trie is a map that keeps its past, whether it is changed step by step or as a draft.
func TestTrieIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type version struct {
		trie  trie[int]
		model map[string]int
	}
	now := version{newTrie[int](), map[string]int{}}
	var past []version
	const keys = 700
	for i := range 6000 {
		if i%500 == 0 {
			now.trie = now.trie.final()
			past = append(past, version{now.trie, maps.Clone(now.model)})
			if i%1000 == 500 {
				now.trie = now.trie.draft()
			}
		}
		key := trieKey(rng.IntN(keys))
		if rng.IntN(5) < 2 {
			now.trie = now.trie.without(key)
			delete(now.model, key)
		} else {
			now.trie = now.trie.with(key, i)
			now.model[key] = i
		}
	}
	now.trie = now.trie.final()
	for n, v := range append(past, now) {
		if v.trie.size != len(v.model) {
			t.Errorf("version %d: %d entries, want %d", n, v.trie.size, len(v.model))
		}
		for i := range keys {
			key := trieKey(i)
			want, has := v.model[key]
			if got, ok := v.trie.getString(key); ok != has || got != want {
				t.Fatalf("version %d: %s is %d %v, want %d %v", n, key, got, ok, want, has)
			}
		}
	}
	for key := range now.model {
		now.trie = now.trie.without(key)
	}
	if now.trie.size != 0 || now.trie.root.branches != [trieFan]*trieBranch[int]{} {
		t.Error("an empty trie has branches")
	}
	if next := now.trie.with("", 7); next.size != 1 {
		t.Error("the empty key is no key")
	} else if v, ok := next.get(nil); !ok || v != 7 {
		t.Errorf("under the empty key is %d %v", v, ok)
	}
}

// What is not drafted stays as it is although the draft goes on.
func TestTrieDraftLeavesItsOriginAlone(t *testing.T) {
	before := newTrie[int]()
	for i := range 300 {
		before = before.with(trieKey(i), i)
	}
	draft := before.draft()
	for i := range 300 {
		if i%2 == 0 {
			draft = draft.without(trieKey(i))
		} else {
			draft = draft.with(trieKey(i), -i).with(trieKey(1000+i), i)
		}
	}
	first := draft.final()
	second := first.draft().with(trieKey(1), 42)
	for i := range 300 {
		if v, ok := before.getString(trieKey(i)); !ok || v != i {
			t.Fatalf("%d has become %d %v", i, v, ok)
		}
	}
	if v, _ := first.getString(trieKey(1)); v != -1 {
		t.Errorf("a finished draft has become %d", v)
	}
	if v, _ := second.getString(trieKey(1)); v != 42 {
		t.Errorf("the next draft has %d", v)
	}
}

// Keys whose hashes agree in all bits are kept apart all the same.
func TestTrieWithEqualHashes(t *testing.T) {
	const hash = 42
	seed := maphash.MakeSeed()
	b := &trieBranch[int]{owner: new(trieOwner)}
	for i, key := range []string{"a", "b", "c"} {
		p := b.page(seed, hash, 1)
		e := trieEntry[int]{value: i, size: uint32(len(key))}
		copy(e.short[:], key)
		p.entries = append(p.entries, e)
		clear(p.index)
		for j := range p.entries {
			p.note(hash, j)
		}
	}
	p := b.page(seed, hash, 0)
	for i, key := range []string{"a", "b", "c"} {
		if got := p.find(hash, []byte(key)); got != i {
			t.Errorf("%s is at %d, want %d", key, got, i)
		}
	}
	if got := p.find(hash, []byte("d")); got != -1 {
		t.Errorf("d is at %d", got)
	}
}

func TestTrieGetAllocatesNothing(t *testing.T) {
	m := newTrie[int]()
	for i := range 1000 {
		m = m.with(trieKey(i), i)
	}
	short, long, missing := []byte(trieKey(5)), []byte(trieKey(59)), []byte("nobody")
	if n := testing.AllocsPerRun(100, func() { m.get(short); m.get(long); m.get(missing) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkTrie is with keys of 22 bytes in an order that no cache expects. get/miss asks for keys that are not there.
func BenchmarkTrie(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		t := newTrie[*int]().draft()
		keys := make([][]byte, n)
		for i := range n {
			key := fmt.Sprintf("consumer-key-%09d", i*7919)
			t, keys[i] = t.with(key, new(int)), []byte(key)
		}
		t = t.final()
		order := rand.New(rand.NewPCG(1, 2)).Perm(n)
		asked := make([][]byte, n) // in memory in the order of asking, so that the keys themselves are no misses
		for i, k := range order {
			asked[i] = append([]byte(nil), keys[k]...)
		}
		b.Run(fmt.Sprintf("get/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				if _, ok := t.get(asked[i%n]); !ok {
					b.Fatal("not found")
				}
			}
		})
		b.Run(fmt.Sprintf("miss/%d", n), func(b *testing.B) {
			for i := range b.N {
				key := asked[i%n]
				key[0] ^= 1
				if _, ok := t.get(key); ok {
					b.Fatal("found")
				}
				key[0] ^= 1
			}
		})
		b.Run(fmt.Sprintf("with/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				next := t.with(string(asked[i%n]), nil)
				_ = next
			}
		})
	}
}

// BenchmarkGuess is what a guesser could measure: a key that is right, wrong in its first byte, wrong in its last one. The wrong ones take
// the same time, whatever of them is right: nearly all end at the hash, whose seed is of the process, and the rest at equalSecret.
func BenchmarkGuess(b *testing.B) {
	const key = "0123456789abcdef0123456789abcdef"
	m := newTrie[int]().with(key, 1)
	for name, guess := range map[string]string{
		"right": key, "first byte": "x" + key[1:], "last byte": key[:31] + "x", "half": key[:16] + "xxxxxxxxxxxxxxxx", "all": strings.Repeat("x", 32),
	} {
		asked := []byte(guess)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				m.get(asked)
			}
		})
		b.Run("compared/"+name, func(b *testing.B) {
			for b.Loop() {
				equalSecret([]byte(key), asked)
			}
		})
	}
}
