package phase

import "headgate/proxy/fault"

// Chain is the plugins of one document, or of all global rules, split by phase and sorted. It is built once and immutable.
type Chain struct {
	Names     []string // every plugin, in the order of execution
	Rewriters []Rewriter
	Accessors []Accessor
	Senders   []Sender
	// Receivers, Responders and Chunkers run last plugin first; they are stored in that order.
	Receivers  []Receiver
	Responders []Responder
	Chunkers   []Chunker
	Finishers  []Finisher
	Closers    []Closer

	choosers []chooser       // the Chunkers again, as those who are asked before
	places   [phases][]place // of the instances of each phase, in the same order
	has      kindSet         // the plugins that the document configures, even to switch them off
	runs     kindSet         // those that are switched on
	slots    SlotRange
}

// The phases, as indices of Chain.places.
const (
	rewritePhase = iota
	accessPhase
	sendPhase
	receivePhase
	responsePhase
	chunkPhase
	donePhase
	phases
)

// place is where an instance stands among those of other chains.
type place struct {
	priority int
	kind     uint8
}

// kindSet is a set of plugin kinds.
type kindSet [4]uint64

func (s *kindSet) add(kind uint8)           { s[kind>>6] |= 1 << (kind & 63) }
func (s *kindSet) contains(kind uint8) bool { return s[kind>>6]>>(kind&63)&1 != 0 }

// NewChain splits instances, which are in the order of execution, by the phases they implement.
func NewChain(instances []Instance) *Chain { return NewChainOf(instances, nil, SlotRange{}) }

// NewChainOf is NewChain for a document that also switches the kinds off off; slots is what the instances have reserved.
func NewChainOf(instances []Instance, off []uint8, slots SlotRange) *Chain {
	c := &Chain{slots: slots}
	for _, k := range off {
		c.has.add(k)
	}
	for n := range instances {
		i := &instances[n]
		c.Names = append(c.Names, i.Name)
		c.has.add(i.Kind)
		c.runs.add(i.Kind)
		at := place{i.Priority, i.Kind}
		if v, ok := i.Plugin.(Rewriter); ok {
			if i.guarded() {
				v = guardedRewriter{i, v}
			}
			c.Rewriters, c.places[rewritePhase] = append(c.Rewriters, v), append(c.places[rewritePhase], at)
		}
		if v, ok := i.Plugin.(Accessor); ok {
			if i.guarded() {
				v = guardedAccessor{i, v}
			}
			c.Accessors, c.places[accessPhase] = append(c.Accessors, v), append(c.places[accessPhase], at)
		}
		if v, ok := i.Plugin.(Sender); ok {
			if i.guarded() {
				v = guardedSender{i, v}
			}
			c.Senders, c.places[sendPhase] = append(c.Senders, v), append(c.places[sendPhase], at)
		}
		if v, ok := i.Plugin.(Finisher); ok {
			if i.guarded() {
				v = guardedFinisher{i, v}
			}
			c.Finishers, c.places[donePhase] = append(c.Finishers, v), append(c.places[donePhase], at)
		}
	}
	for n := len(instances) - 1; n >= 0; n-- {
		i := &instances[n]
		at := place{i.Priority, i.Kind}
		if v, ok := i.Plugin.(Receiver); ok {
			if i.guarded() {
				v = guardedReceiver{i, v}
			}
			c.Receivers, c.places[receivePhase] = append(c.Receivers, v), append(c.places[receivePhase], at)
		}
		if v, ok := i.Plugin.(Responder); ok {
			if i.guarded() {
				v = guardedResponder{i, v}
			}
			c.Responders, c.places[responsePhase] = append(c.Responders, v), append(c.places[responsePhase], at)
		}
		if v, ok := i.Plugin.(Chunker); ok {
			wants, _ := v.(Chooser)
			if i.guarded() {
				g := guardedChunker{i, v, chooser{wants}}
				v, wants = g, g
			}
			c.choosers = append(c.choosers, chooser{wants})
			c.Chunkers, c.places[chunkPhase] = append(c.Chunkers, v), append(c.places[chunkPhase], at)
		}
		if v, ok := i.Plugin.(Closer); ok {
			c.Closers = append(c.Closers, v)
		}
	}
	return c
}

// RewriteGlobal runs the rewrite phase of the global rules and says whether to go on.
func (x *Exchange) RewriteGlobal() Verdict { return x.rewrite(x.global) }

// Rewrite runs the rewrite phase of the route's plugins and says whether to go on.
func (x *Exchange) Rewrite() Verdict { return x.rewrite(x.chain) }

func (x *Exchange) rewrite(c *Chain) Verdict {
	if c == nil {
		return Continue
	}
	for _, p := range c.Rewriters {
		if p.Rewrite(x) == Stop {
			return x.stop()
		}
	}
	return Continue
}

// AccessGlobal runs the access phase of the global rules and says whether to go on.
func (x *Exchange) AccessGlobal() Verdict {
	if x.global == nil {
		return Continue
	}
	for i, p := range x.global.Accessors {
		if x.passing && x.passed.contains(x.global.places[accessPhase][i].kind) {
			continue
		}
		if p.Access(x) == Stop {
			return x.stop()
		}
	}
	x.passing, x.passed = false, kindSet{}
	return Continue
}

// Access runs the access phase of the route's plugins, and of the consumer's where there is one, as Rewrite does.
func (x *Exchange) Access() Verdict {
	if x.joined {
		for w := x.walk(accessPhase); w.next(); {
			if x.passing && x.passed.contains(w.kind) {
				continue
			}
			if w.chain.Accessors[w.index].Access(x) == Stop {
				return x.stop()
			}
		}
		return Continue
	}
	if x.chain == nil {
		return Continue
	}
	for i, p := range x.chain.Accessors {
		if x.passing && x.passed.contains(x.chain.places[accessPhase][i].kind) {
			continue
		}
		if p.Access(x) == Stop {
			return x.stop()
		}
	}
	return Continue
}

// PassOver takes the access phase from the plugins of a kind (see Env.Number) that come behind the caller: of the global rules when it is one
// of them, else of the route and the consumer. It is for a plugin that has done their work.
func (x *Exchange) PassOver(kind uint8) {
	x.passing = true
	x.passed.add(kind)
}

// Send runs the send phase before an attempt: of the global rules, then of the route.
func (x *Exchange) Send() Verdict {
	if x.global != nil {
		for _, p := range x.global.Senders {
			if p.Send(x) == Stop {
				return x.stop()
			}
		}
	}
	if x.joined {
		for w := x.walk(sendPhase); w.next(); {
			if w.chain.Senders[w.index].Send(x) == Stop {
				return x.stop()
			}
		}
		return Continue
	}
	if x.chain != nil {
		for _, p := range x.chain.Senders {
			if p.Send(x) == Stop {
				return x.stop()
			}
		}
	}
	return Continue
}

// Respond runs the response phase: of the route, then of the global rules, each last plugin first.
func (x *Exchange) Respond() {
	if x.joined {
		for w := x.walk(responsePhase); w.next(); {
			w.chain.Responders[w.index].Response(x)
		}
	} else if x.chain != nil {
		for _, p := range x.chain.Responders {
			p.Response(x)
		}
	}
	if x.global != nil {
		for _, p := range x.global.Responders {
			p.Response(x)
		}
	}
}

// Finish runs the done phase, the first time it is called; later calls do nothing. A plugin that panics does not keep the others
// from being told; panicked is called with what it threw.
func (x *Exchange) Finish(panicked func(any)) {
	if x.done {
		return
	}
	x.done = true
	if x.joined {
		for w := x.walk(donePhase); w.next(); {
			x.finishOne(w.chain.Finishers[w.index], panicked)
		}
	} else if x.chain != nil {
		for i := range x.chain.Finishers {
			x.finishOne(x.chain.Finishers[i], panicked)
		}
	}
	if x.global != nil {
		for i := range x.global.Finishers {
			x.finishOne(x.global.Finishers[i], panicked)
		}
	}
}

func (x *Exchange) finishOne(p Finisher, panicked func(any)) {
	defer func() {
		if r := recover(); r != nil {
			panicked(r)
		}
	}()
	p.Done(x)
}

// Stopped says that a plugin ended the exchange with an answer of its own.
func (x *Exchange) Stopped() bool { return x.stopped }

// Fail makes f the outcome: the page for its status, made by the gateway.
func (x *Exchange) Fail(f *fault.Fault) {
	x.Fault = f
	x.AnswerPage(f.Status)
	x.Response.Source = FromGateway
}

func (x *Exchange) stop() Verdict {
	x.stopped = true
	return Stop
}
