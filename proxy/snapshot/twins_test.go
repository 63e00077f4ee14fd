package snapshot

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"headgate/proxy/route"
)

// passing notes the routes that the router comes to.
type passing struct{ keys []string }

func (p *passing) Accept(r *Route) bool {
	p.keys = append(p.keys, r.Key)
	return false
}

// twins are the routes for /x in the order in which the router tries them.
func (r *rig) twins() []string {
	var p passing
	var m route.Match
	r.c.table.Find(&route.Query{Path: []byte("/x")}, &p, &m)
	return p.keys
}

// write is an edit of a route through this gateway: what the store says of it is known only after it was compiled.
func (r *rig) write(e Edit, since uint64) {
	r.t.Helper()
	st, err := r.c.Stage(r.lookup, []Edit{e}, false)
	if err != nil {
		r.t.Fatal(err)
	}
	if e.Since == NotStored {
		st.Stored(e.Key, since)
	}
	if compiled := len(st.routes); compiled != 1 {
		r.t.Errorf("one edit compiled %d routes", compiled)
	}
	st.Commit(1)
	r.docs[e.Key], r.told[e.Key], r.born[e.Key] = string(e.Value), string(e.Value), since
}

// The order of routes that are equal to the router follows from what is stored, wherever it was written, whatever came first, and in which
// pieces: the one that was stored first, then by key.
func TestTwins(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		stored := map[string]Edit{}
		gateways := []*rig{newRig(t), newRig(t), newRig(t)}
		waiting := make([][]Edit, len(gateways))
		for step := range uint64(50) {
			key := fmt.Sprintf("routes/%d", rng.IntN(12))
			e, had := stored[key]
			if e.Key = key; had && rng.IntN(3) == 0 {
				delete(stored, key)
				e.Value, e.Since = nil, 0
			} else {
				if !had {
					e.Since = step + 1
				}
				// Some are not for the router at all for a while.
				e.Value = fmt.Appendf(nil, `{"id":%q,"uri":"/x","desc":"%d","status":%d}`, key[7:], step, min(rng.IntN(6), 1))
				stored[key] = e
			}
			writer := rng.IntN(2 * len(gateways)) // often it is somebody else
			for n, r := range gateways {
				knows := !slices.ContainsFunc(waiting[n], func(w Edit) bool { return w.Key == key }) // or the store would refuse it
				switch {
				case n == writer && knows && e.Value != nil:
					own := e
					if !had {
						own.Since = NotStored
					}
					r.write(own, e.Since)
				default:
					waiting[n] = append(waiting[n], e)
				}
				if rng.IntN(3) == 0 {
					r.arrive(waiting[n])
					waiting[n] = nil
				}
			}
		}
		all := make([]Edit, 0, len(stored))
		var want []string
		for _, e := range stored {
			all = append(all, e)
		}
		slices.SortFunc(all, func(a, b Edit) int { return cmp.Compare(a.Since, b.Since) })
		for _, e := range all {
			if e.Value[len(e.Value)-2] == '1' {
				want = append(want, e.Key)
			}
		}
		again := newRig(t) // a gateway that starts now
		again.arrive(all)
		for n, r := range append(gateways, again) {
			if n < len(waiting) {
				r.arrive(waiting[n])
			}
			if got := r.twins(); !slices.Equal(got, want) {
				t.Fatalf("seed %d, gateway %d: %v, want %v", seed, n, got, want)
			}
		}
	}
}

// Routes that were stored together are ordered by key, and what is not stored yet is the last.
func TestTwinsOfOneMoment(t *testing.T) {
	r := newRig(t)
	doc := func(id string) []byte { return fmt.Appendf(nil, `{"id":%q,"uri":"/x"}`, id) }
	r.arrive([]Edit{{Key: "routes/b", Value: doc("b"), Since: 5}, {Key: "routes/a", Value: doc("a"), Since: 5}, {Key: "routes/10", Value: doc("10"), Since: 5},
		{Key: "routes/file", Value: doc("file")}})
	if got := r.twins(); !slices.Equal(got, []string{"routes/file", "routes/10", "routes/a", "routes/b"}) {
		t.Errorf("stored together: %v", got)
	}
	st, err := r.c.Stage(r.lookup, []Edit{{Key: "routes/0", Value: doc("0"), Since: NotStored}, {Key: "routes/00", Value: doc("00"), Since: NotStored}}, false)
	if err != nil {
		t.Fatal(err)
	}
	st.Stored("routes/0", 9)
	st.Stored("routes/00", 9)
	st.Stored("routes/none", 9)
	st.Commit(1)
	if got := r.twins(); !slices.Equal(got, []string{"routes/file", "routes/10", "routes/a", "routes/b", "routes/0", "routes/00"}) {
		t.Errorf("written together: %v", got)
	}
	r.docs["routes/0"], r.docs["routes/00"] = string(doc("0")), string(doc("00"))
	r.arrive([]Edit{{Key: "routes/late", Value: doc("late"), Since: 8}})
	if got := r.twins(); !slices.Equal(got, []string{"routes/file", "routes/10", "routes/a", "routes/b", "routes/late", "routes/0", "routes/00"}) {
		t.Errorf("one that was stored before them: %v", got)
	}
}
