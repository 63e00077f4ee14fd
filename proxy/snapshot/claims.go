package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Two documents may claim what only one can have: consumers and credentials the same identity, global rules the same plugin. Edits through
// this gateway are refused then, but another gateway on the same store may have taken the other document at the same moment. So who has it
// must follow from what is stored and from nothing else: the document that was stored first has it, whenever either of them arrives here,
// and also after both were edited or this process was started again. For the same reason the version before does not stay of a document
// that has lost an identity: a gateway that has never seen that version could not have it.

// mayClaim says whether the document key is of a kind that does.
func mayClaim(key string) bool {
	return strings.HasPrefix(key, "consumers/") || strings.HasPrefix(key, globalUnit+"/")
}

// OrderBy sets when each document was stored first, for those that are not edited: of two that claim the same the one with the lower number
// has it, of equals the one whose key comes first, and so are routes ordered that are equal to the router. nil, the default, knows of no time.
func (c *Compiler) OrderBy(since func(key string) uint64) { c.since = since }

// since returns the moment from which the document key has its claims: a credential not before its consumer.
func (st *Stage) since(key string) uint64 {
	moment := func(key string) uint64 {
		if doc := st.edits[key]; doc != nil {
			return st.born[key]
		}
		if st.c.since == nil {
			return 0
		}
		return st.c.since(key)
	}
	if unit := unitOf(key); unit != key && unit != globalUnit {
		return max(moment(key), moment(unit))
	}
	return moment(key)
}

// inOrderOf compares two documents by when they were stored first.
func (st *Stage) inOrderOf(a, b string) int {
	return cmp.Or(cmp.Compare(st.since(a), st.since(b)), strings.Compare(a, b))
}

// contest settles which of the consumers that a stage has compiled, and of those in force, shows which identity.
type contest struct {
	st    *Stage
	tried map[string]*consumer // by key: as they will be if they lose nothing; nil for those that are gone
	won   map[string]*credential
	lost  map[string]*credential // owner of what is lost -> what has won
	gone  map[string]*credential // of lost what is so for good: the rest is made up anew in every run
}

// run returns the keys of consumers that have to be compiled, too: they show what an older document claims, or have waited for what one
// of the others may have given up. There are none when everything is settled.
func (ct *contest) run() (more []string) {
	st := ct.st
	ct.won, ct.lost = map[string]*credential{}, maps.Clone(ct.gone)
	type since struct {
		*credential
		moment uint64
	}
	var claims []since
	wanted := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(ct.tried)) {
		docs := append(st.credentialKeys(key), key)
		for _, doc := range docs {
			for user := range st.c.users[doc] {
				wanted[user] = true
			}
		}
		if c := ct.tried[key]; c != nil {
			for _, claim := range c.credentials {
				claims = append(claims, since{claim, st.since(claim.owner)})
			}
		}
	}
	slices.SortStableFunc(claims, func(a, b since) int {
		return cmp.Or(cmp.Compare(a.moment, b.moment), strings.Compare(a.owner, b.owner)) // as inOrderOf
	})
	for _, c := range claims {
		claim := c.credential
		if ct.lost[claim.owner] != nil || ct.lost[unitOf(claim.owner)] != nil {
			continue
		}
		holder := ct.won[claim.key]
		if inForce, taken := st.c.registry.credentials.getString(claim.key); taken && holder == nil {
			if unit := unitOf(inForce.owner); !has(ct.tried, unit) {
				if holder = inForce; st.inOrderOf(claim.owner, holder.owner) < 0 {
					wanted[unit] = true // and who has it is told by the next run
				}
			}
		}
		if holder == nil || holder.owner == claim.owner {
			ct.won[claim.key] = claim
		} else {
			ct.lose(claim, holder)
		}
	}
	for key := range wanted {
		if strings.HasPrefix(key, "consumers/") && !has(ct.tried, key) {
			more = append(more, key)
		}
	}
	if len(more) == 0 && ct.dropKept() {
		return ct.run()
	}
	slices.Sort(more)
	return more
}

// dropKept gives up consumers that are as they were, because no version of them compiles any more, and that have lost a credential: as
// they are they would still show it. It reports whether there are any; who has lost to one of them may win then.
func (ct *contest) dropKept() (found bool) {
	for owner, holder := range ct.lost {
		unit := unitOf(owner)
		if c := ct.tried[unit]; c != nil && c == ct.st.c.consumers[unit] {
			ct.gone[owner], ct.gone[unit], found = holder, holder, true
		}
	}
	for unit := range ct.gone {
		if has(ct.tried, unit) {
			ct.tried[unit] = nil
		}
	}
	return found
}

// lose takes away everything that the document of claim has won: it is in force as a whole or not at all.
func (ct *contest) lose(claim, holder *credential) {
	ct.lost[claim.owner] = holder
	for _, got := range ct.tried[unitOf(claim.owner)].credentials {
		if ct.won[got.key] == got && got.owner == claim.owner {
			delete(ct.won, got.key)
		}
	}
}

func has[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}

// refusal is what is wrong with a claim that holder has won.
func (ct *contest) refusal(holder *credential) error {
	k := ct.st.c.opt.Kinds[holder.key[0]]
	return pluginError(k.Name, fmt.Errorf("duplicate %s found with %s", k.Consumer.Identity, holder.owner))
}

// objection returns why a stage that is not lenient cannot be: an edited document claims what another one has, or would take it away from
// one that is in force.
func (ct *contest) objection() error {
	st := ct.st
	for _, owner := range slices.Sorted(maps.Keys(ct.lost)) {
		holder := ct.lost[owner]
		if st.edits[owner] != nil {
			return &Problem{owner, ct.refusal(holder)}
		}
		inForce, taken := st.c.registry.credentials.getString(holder.key)
		if st.edits[holder.owner] != nil && taken && inForce.owner == owner {
			return &Problem{holder.owner, ct.refusal(inForce)}
		}
	}
	return nil
}

// apply puts the outcome into the stage.
func (ct *contest) apply() {
	st := ct.st
	for _, owner := range slices.Sorted(maps.Keys(ct.lost)) {
		unit, holder := unitOf(owner), ct.lost[owner]
		switch c := ct.tried[unit]; {
		case c == nil:
		case owner == unit:
			c.close()
			delete(st.state, unit)
			ct.tried[unit] = nil
		default:
			c.credentials = slices.DeleteFunc(c.credentials, func(got *credential) bool { return got.owner == owner })
		}
		if st.docs(owner) != nil {
			st.Dropped = append(st.Dropped, owner)
		}
		if !has(st.left, owner) {
			doc, _ := st.latest(owner)
			st.leaveOut(owner, doc, ct.refusal(holder))
		}
		st.depend(unit, holder.owner) // to be tried again when that one is edited or goes
		st.depend(unit, unitOf(holder.owner))
	}
	for key := range ct.tried {
		if old := st.c.consumers[key]; old != nil {
			st.registry = st.registry.without(old)
		}
	}
	for key, c := range ct.tried {
		if c != nil {
			st.registry = st.registry.with(c)
		}
		if c == nil || c != st.c.consumers[key] {
			st.consumers[key] = c
		}
	}
}
