package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Many rules, some with keys too long for a bucket, put and removed in batches: every rule that is there is found, no other is.
func TestManyRules(t *testing.T) {
	const count = 1500
	for _, mode := range []Mode{HostURI, URI} {
		rnd := rand.New(rand.NewPCG(1, uint64(mode)))
		rules := make([]rule, count)
		for i := range rules {
			id := fmt.Sprint(i)
			host := "h" + id + strings.Repeat("x", i%70)
			uri := "/" + strings.Repeat("p", i%130) + "/" + id
			if i%3 == 0 {
				uri += "/*"
			}
			rules[i] = rule{ID: id, URIs: []string{uri}, Hosts: []string{host}, Target: id}
			if i%5 == 0 {
				rules[i].Hosts = nil
			}
		}
		there := make([]bool, count)
		table := New[string](mode)
		for step := range 8 {
			var remove []string
			var put []rule
			for i := range rules {
				keep := step < 7 && rnd.IntN(2) == 0
				if keep {
					put = append(put, rules[i])
				} else if there[i] {
					remove = append(remove, rules[i].ID)
				}
				there[i] = keep
			}
			table = mustWith(t, table, remove, put...)
			var m Match
			for i, r := range rules {
				q := Query{Host: []byte("other"), Path: []byte(strings.TrimSuffix(r.URIs[0], "*"))}
				if len(r.Hosts) > 0 {
					q.Host = []byte(r.Hosts[0])
				}
				if strings.HasSuffix(r.URIs[0], "*") {
					q.Path = append(q.Path, strings.Repeat("y", i%90)...)
				}
				if got, ok := table.Find(&q, nil, &m); ok != there[i] || ok && got != r.ID {
					t.Fatalf("%v step %d: %s%s finds %q %v, want %v", mode, step, q.Host, q.Path, got, ok, there[i])
				}
			}
			checkBuckets(t, table)
		}
		if !table.buckets.vacant() {
			t.Errorf("%v: an emptied table keeps buckets", mode)
		}
	}
}

// A table that has lost most of its rules gives most of its memory back, and one that is loaded at once takes no more than one that grew.
func TestPlaces(t *testing.T) {
	const count = 5000
	rules := make([]rule, count)
	var ids []string
	for i := range rules {
		rules[i] = rule{ID: fmt.Sprint(i), URIs: []string{fmt.Sprintf("/%d", i)}, Target: fmt.Sprint(i)}
		ids = append(ids, rules[i].ID)
	}
	places := func(table *Table[string]) (n int) {
		for _, s := range table.buckets.shelves {
			if s != nil {
				n += len(s.rows) * rowSize
			}
		}
		return n
	}
	loaded := mustWith(t, New[string](HostURI), nil, rules...)
	grown := New[string](HostURI)
	for part := range 50 {
		grown = mustWith(t, grown, nil, rules[part*count/50:(part+1)*count/50]...)
	}
	for name, table := range map[string]*Table[string]{"loaded": loaded, "grown": grown} {
		if n := places(table); n < count*8/7 || n > count*8/5 {
			t.Errorf("%s: %d places for %d buckets", name, n, count)
		}
		for part := range 10 { // each part is an edit of its own
			table = mustWith(t, table, ids[part*count/10:(part+1)*count/10-10])
		}
		checkBuckets(t, table)
		if n := places(table); n > 100*3+fan*2*traySize {
			t.Errorf("%s: %d places for 100 buckets", name, n)
		}
	}
}

// Whatever is stored: every stored prefix of a path is looked for, and from the longest to the shortest.
func TestSizes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var z sizes
		stored := map[string]int{}
		path := []byte("/")
		for len(path) < 200 {
			path = append(path, "ab/"[rnd.IntN(3)])
		}
		path = path[:1+rnd.IntN(len(path))]
		for range rnd.IntN(12) {
			text := string(path[:rnd.IntN(len(path)+1)]) + strings.Repeat("/", rnd.IntN(20)/19)
			stored[text]++
			z.change(text, 1)
		}
		for text := range stored {
			if rnd.IntN(3) == 0 {
				z.change(text, -1)
				if stored[text]--; stored[text] == 0 {
					delete(stored, text)
				}
			}
		}
		last := len(path) + 1
		for size := z.longest(path); size >= 0; size = z.upTo(path, size-1) {
			if size >= last {
				t.Fatalf("%d after %d", size, last)
			}
			last = size
			delete(stored, string(path[:size]))
		}
		for text := range stored {
			if strings.HasPrefix(string(path), text) {
				t.Fatalf("%q is not looked for in %q, sizes %+v", text, path, z)
			}
		}
	}
}

// A path with thousands of places where a prefix could end is not looked up at each of them.
func TestFewPrefixesAreTried(t *testing.T) {
	var z sizes
	for _, text := range []string{"", "/", "/api/", "/api/v1/", "/static"} {
		z.change(text, 1)
	}
	path := []byte("/" + strings.Repeat("a/", 3000))
	tried := 0
	for size := z.longest(path); size >= 0; size = z.upTo(path, size-1) {
		tried++
	}
	if tried > 5 {
		t.Errorf("%d prefixes are tried", tried)
	}
}
