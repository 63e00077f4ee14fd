package phase

// Join brings the plugins of the consumer into the exchange: from now on those of the consumer, of its group and of the route run as one
// chain, in which the consumer's configuration of a plugin wins over the group's and that over the route's (contract section 2.7). It
// then runs the rewrite phase of what the route does not have, which has missed it, and says whether to go on. Without a consumer, or
// when neither it nor its group has plugins, nothing happens.
func (x *Exchange) Join(group *Chain) Verdict {
	if x.principal == nil || x.principal.Chain == nil && group == nil {
		return Continue
	}
	x.own, x.group, x.joined = x.principal.Chain, group, true
	x.reserve(x.own)
	x.reserve(x.group)
	for w := x.walk(rewritePhase); w.next(); {
		if w.chain == x.chain || x.chain != nil && x.chain.has.contains(w.kind) {
			continue
		}
		if w.chain.Rewriters[w.index].Rewrite(x) == Stop {
			return x.stop()
		}
	}
	return Continue
}

// Principal returns the consumer of the exchange, nil when nobody was authenticated.
func (x *Exchange) Principal() *Principal { return x.principal }

// runs says whether the plugin kind is in force for the exchange outside the global rules.
func (x *Exchange) runs(kind uint8) bool {
	for n, c := range [...]*Chain{x.chain, x.group, x.own} {
		if c != nil && c.runs.contains(kind) && !x.hidden(n, kind) {
			return true
		}
	}
	return false
}

// hidden says whether a stronger chain than that of strength n configures kind: 0 is the route's, 1 the group's, 2 the consumer's.
func (x *Exchange) hidden(n int, kind uint8) bool {
	return n < 2 && x.own != nil && x.own.has.contains(kind) || n < 1 && x.group != nil && x.group.has.contains(kind)
}

// walk visits the instances of one phase of the route's, the group's and the consumer's chains in the order of execution.
type walk struct {
	x       *Exchange
	phase   uint8
	strong  uint8 // of chain
	heads   [3]int
	chain   *Chain
	index   int
	kind    uint8
	reverse bool
}

func (x *Exchange) walk(phase uint8) walk {
	return walk{x: x, phase: phase, reverse: phase == receivePhase || phase == responsePhase || phase == chunkPhase}
}

// next moves to the next instance and says whether there is one.
func (w *walk) next() bool {
	w.chain = nil
	var best place
	for n, c := range [...]*Chain{w.x.chain, w.x.group, w.x.own} {
		if c == nil {
			continue
		}
		places := c.places[w.phase]
		i := w.heads[n]
		for i < len(places) && w.x.hidden(n, places[i].kind) {
			i++
		}
		w.heads[n] = i
		if i == len(places) {
			continue
		}
		p := places[i]
		if w.chain == nil || p.priority != best.priority && p.priority > best.priority != w.reverse {
			w.chain, w.index, w.strong, best = c, i, uint8(n), p
		}
	}
	if w.chain == nil {
		return false
	}
	w.kind = best.kind
	w.heads[w.strong]++
	return true
}
