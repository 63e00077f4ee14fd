package snapshot

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"testing"
)

// A trie is a map that keeps its past.
func TestTrieIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type version struct {
		trie  trie[int]
		model map[string]int
	}
	now := version{newTrie[int](), map[string]int{}}
	var past []version
	for i := range 5000 {
		key := fmt.Sprint(rng.IntN(700))
		model := maps.Clone(now.model)
		if rng.IntN(5) < 2 {
			now.trie = now.trie.without(key)
			delete(model, key)
		} else {
			now.trie = now.trie.with(key, i)
			model[key] = i
		}
		now.model = model
		if i%500 == 0 {
			past = append(past, now)
		}
	}
	for n, v := range append(past, now) {
		if v.trie.size != len(v.model) {
			t.Errorf("version %d: %d entries, want %d", n, v.trie.size, len(v.model))
		}
		for i := range 700 {
			key := fmt.Sprint(i)
			want, has := v.model[key]
			if got, ok := v.trie.get([]byte(key)); ok != has || got != want {
				t.Fatalf("version %d: %s is %d %v, want %d %v", n, key, got, ok, want, has)
			}
		}
	}
	for key := range now.model {
		now.trie = now.trie.without(key)
	}
	if now.trie.root != nil || now.trie.size != 0 {
		t.Error("an empty trie has nodes")
	}
}

// Keys whose hashes agree in all bits are kept apart all the same.
func TestTrieWithEqualHashes(t *testing.T) {
	var root *trieNode[int]
	for i, key := range []string{"a", "b", "c", "b"} {
		root = root.with(&trieLeaf[int]{hash: 42, key: key, value: i}, 0)
	}
	seen := map[string]int{}
	for n := root; n != nil; n = n.children[0].node {
		for l := n.children[0].leaf; l != nil; l = l.next {
			seen[l.key] += l.value + 1
		}
	}
	if want := map[string]int{"a": 1, "b": 4, "c": 3}; !maps.Equal(seen, want) {
		t.Errorf("the list holds %v, want %v", seen, want)
	}
	if root = root.without(42, "b", 0); root == nil {
		t.Fatal("all are gone")
	}
	root = root.without(42, "a", 0)
	if root = root.without(42, "c", 0); root != nil {
		t.Error("something is left")
	}
}

func BenchmarkTrieGet(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		t := trie[int]{seed: maphash.MakeSeed()}
		keys := make([][]byte, n)
		for i := range n {
			key := fmt.Sprintf("consumer-key-%08d", i*7919)
			t, keys[i] = t.with(key, i), []byte(key)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		order := rng.Perm(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for i := range b.N {
				if _, ok := t.get(keys[order[i%n]]); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}
