package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

const basicNumber = 5 // of the rig's second authentication plugin

// identities of the documents of TestClaims.
var identities = [...]string{"k0", "k1", "k2", "k3"}

// claimDoc is a document that claims some of them: by auth and basic, "" for none.
type claimDoc struct {
	since       uint64
	auth, basic string
}

func (d claimDoc) text(key string) string {
	var plugins []string
	if d.auth != "" {
		plugins = append(plugins, fmt.Sprintf(`"auth":{"key":%q}`, d.auth))
	}
	if d.basic != "" {
		plugins = append(plugins, fmt.Sprintf(`"basic":{"key":%q}`, d.basic))
	}
	_, name, _ := strings.Cut(key, "/")
	if consumer, id, below := strings.Cut(name, "/credentials/"); below {
		return fmt.Sprintf(`{"id":%q,"desc":%q,"plugins":{%s}}`, id, consumer, strings.Join(plugins, ","))
	}
	return fmt.Sprintf(`{"username":%q,"plugins":{%s}}`, name, strings.Join(plugins, ","))
}

// owners is who has what by the rule alone: the documents in the order in which they were stored first, each as a whole or not at all.
func owners(docs map[string]claimDoc) map[string]string {
	since := func(key string) uint64 { return max(docs[key].since, docs[unitOf(key)].since) }
	keys := slices.SortedFunc(maps.Keys(docs), func(a, b string) int {
		return cmp.Or(cmp.Compare(since(a), since(b)), strings.Compare(a, b))
	})
	has, refused := map[string]string{}, map[string]bool{}
	for _, key := range keys {
		d := docs[key]
		claims := map[string]bool{"auth " + d.auth: d.auth != "", "basic " + d.basic: d.basic != ""}
		_, owned := docs[unitOf(key)]
		for claim, made := range claims {
			if made && has[claim] != "" || !owned || refused[unitOf(key)] {
				refused[key] = true
			}
		}
		for claim, made := range claims {
			if made && !refused[key] {
				has[claim] = key
			}
		}
	}
	return has
}

// Who has an identity follows from what is stored, whatever came first, in which pieces, and what happened before.
func TestClaims(t *testing.T) {
	keys := []string{"consumers/a", "consumers/b", "consumers/c", "consumers/a/credentials/1", "consumers/a/credentials/2",
		"consumers/b/credentials/1", "consumers/c/credentials/1"}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 5))
		some := func() string {
			if rng.IntN(3) == 0 {
				return ""
			}
			return identities[rng.IntN(len(identities))]
		}
		docs := map[string]claimDoc{}
		gateways := []*rig{newRig(t), newRig(t)}
		waiting := make([][]Edit, len(gateways)) // changes that have not arrived
		for step := range uint64(60) {
			key := keys[rng.IntN(len(keys))]
			e := Edit{Key: key}
			if d, had := docs[key]; had && rng.IntN(4) == 0 {
				delete(docs, key)
			} else {
				if d.auth, d.basic = some(), some(); strings.Contains(key, "credentials") {
					d.basic = "" // a credential has one plugin
				}
				if !had {
					d.since = step/3 + 1 // some are stored by one change
				}
				docs[key], e.Value, e.Since = d, []byte(d.text(key)), d.since
			}
			for n, r := range gateways {
				if waiting[n] = append(waiting[n], e); rng.IntN(3) == 0 {
					r.arrive(waiting[n])
					waiting[n] = nil
				}
			}
		}
		again := newRig(t) // a gateway that starts now
		var all []Edit
		for key, d := range docs {
			all = append(all, Edit{Key: key, Value: []byte(d.text(key)), Since: d.since})
		}
		again.arrive(all)
		want := owners(docs)
		for n, r := range append(gateways, again) {
			if n < len(waiting) {
				r.arrive(waiting[n])
			}
			if got := r.owners(); !maps.Equal(got, want) {
				t.Fatalf("seed %d, gateway %d: %v, want %v\n%v", seed, n, got, want, docs)
			}
		}
	}
}

// arrive takes edits as from a store; of several of one document the last counts.
func (r *rig) arrive(list []Edit) {
	r.t.Helper()
	last := map[string]Edit{}
	for _, e := range list {
		last[e.Key] = e
	}
	edits := slices.Collect(maps.Values(last))
	st, err := r.c.Stage(r.lookup, edits, true)
	if err != nil {
		r.t.Fatal(err)
	}
	st.Commit(1)
	left := map[string]bool{}
	for _, p := range st.Problems {
		if left[p.Key] {
			r.t.Errorf("%s is a problem twice", p.Key)
		}
		left[p.Key] = true
	}
	for _, key := range st.Dropped {
		delete(r.docs, key)
	}
	for key, e := range last {
		r.told[key] = string(e.Value)
		switch {
		case e.Value == nil:
			delete(r.docs, key)
			delete(r.born, key)
		default:
			if r.born[key] = e.Since; !left[key] {
				r.docs[key] = string(e.Value)
			}
		}
	}
	for _, key := range st.Recovered {
		r.docs[key] = r.told[key]
	}
	r.collect()
}

// owners is who has what.
func (r *rig) owners() map[string]string {
	found := map[string]string{}
	s := r.live.Current()
	for name, number := range map[string]uint8{"auth": authNumber, "basic": basicNumber} {
		for _, id := range identities {
			if c, ok := s.registry.credentials.getString(credentialKey(number, id)); ok {
				found[name+" "+id] = c.owner
			}
		}
	}
	return found
}

// An edit takes nothing away that is in force, however much older its document is.
func TestEditsTakeNothingAway(t *testing.T) {
	r := newRig(t)
	r.put("consumers/old", `{"username":"old","plugins":{"auth":{"key":"k1"}}}`)
	r.put("consumers/new", `{"username":"new","plugins":{"auth":{"key":"k2"}}}`)
	r.refuse("duplicate key found with consumers/new", "consumers/old", `{"username":"old","plugins":{"auth":{"key":"k2"}}}`)
	// From the store it does: another gateway has taken it, and every gateway has to decide alike.
	if left := r.offer("consumers/old", `{"username":"old","plugins":{"auth":{"key":"k2"}}}`); !slices.Equal(left, []string{"consumers/new"}) || r.who("k2") != "old" || r.who("k1") != "" {
		t.Errorf("left out %v, k2 is %q", left, r.who("k2"))
	}
	if _, shown := r.docs["consumers/new"]; shown || r.live.Current().Principal("new") != nil {
		t.Error("who has lost is in force")
	}
	// An edit of the one that has lost is like one of any other, and so is the end of the one that has won.
	r.refuse("duplicate key found with consumers/old", "consumers/new", `{"username":"new","plugins":{"auth":{"key":"k2"},"low":{}}}`)
	r.put("consumers/old", "")
	if r.who("k2") != "new" || len(r.c.left) != 0 {
		t.Errorf("k2 is %q, left out %v", r.who("k2"), r.c.left)
	}
}

// A consumer of which no version compiles any more stays as it is, unless an older document has what one of its credentials claims.
func TestWhatIsKeptLosesToo(t *testing.T) {
	r := newRig(t)
	t.Setenv("HEADGATE_TEST", "x")
	r.put("consumers/old", `{"username":"old"}`)
	r.put("consumers/young", `{"username":"young","plugins":{"auth":{"key":"k1"},"mid":{"id":"$env://HEADGATE_TEST"}}}`)
	r.put("consumers/young/credentials/1", `{"id":"1","plugins":{"auth":{"key":"k2"}}}`)
	r.put("consumers/waits", `{"username":"waits"}`)
	r.offer("consumers/waits", `{"username":"waits","plugins":{"auth":{"key":"k1"}}}`)
	if err := os.Unsetenv("HEADGATE_TEST"); err != nil {
		t.Fatal(err)
	}
	r.offer("consumers/young/credentials/2", `{"id":"2","plugins":{"auth":{"key":"k3"}}}`)
	if r.who("k1") != "young" || r.who("k2") != "young  1" || r.who("k3") != "" {
		t.Fatalf("kept: k1 %q, k2 %q, k3 %q", r.who("k1"), r.who("k2"), r.who("k3"))
	}
	r.offer("consumers/old", `{"username":"old","plugins":{"auth":{"key":"k2"}}}`)
	if r.who("k1") != "waits" || r.who("k2") != "old" || r.live.Current().Principal("young") != nil {
		t.Errorf("k1 %q, k2 %q", r.who("k1"), r.who("k2"))
	}
}
