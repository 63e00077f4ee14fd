package phase

import "headgate/proxy/fault"

// Chain is the plugins of one document, or of all global rules, split by phase and sorted. It is built once and immutable.
type Chain struct {
	Rewriters []Rewriter
	Accessors []Accessor
	Senders   []Sender
	// Receivers, Responders and Chunkers run last plugin first; they are stored in that order.
	Receivers  []Receiver
	Responders []Responder
	Chunkers   []Chunker
	Finishers  []Finisher
	Closers    []Closer

	choosers []chooser // the Chunkers again, as those who are asked before
	*layout
	slots SlotRange
}

// NewChain splits instances, which are in the order of execution, by the phases they implement.
func NewChain(instances []Instance) *Chain { return NewChainOf(instances, nil, SlotRange{}) }

// NewChainOf is NewChain for a document that also switches the kinds off off; slots is what the instances have reserved.
func NewChainOf(instances []Instance, off []uint8, slots SlotRange) *Chain {
	return (*Layouts)(nil).NewChain(instances, off, slots)
}

// NewChain is NewChainOf for a chain that may have much in common with others.
func (l *Layouts) NewChain(instances []Instance, off []uint8, slots SlotRange) *Chain {
	var buf [16]phaseSet
	in := buf[:0]
	for n := range instances {
		in = append(in, phasesOf(instances[n].Plugin))
	}
	c := &Chain{layout: l.of(instances, off, in), slots: slots}
	c.Rewriters = members(c, rewritePhase, instances, in, func(i *Instance, v Rewriter) Rewriter { return guardedRewriter{i, v} })
	c.Accessors = members(c, accessPhase, instances, in, func(i *Instance, v Accessor) Accessor { return guardedAccessor{i, v} })
	c.Senders = members(c, sendPhase, instances, in, func(i *Instance, v Sender) Sender { return guardedSender{i, v} })
	c.Receivers = members(c, receivePhase, instances, in, func(i *Instance, v Receiver) Receiver { return guardedReceiver{i, v} })
	c.Responders = members(c, responsePhase, instances, in, func(i *Instance, v Responder) Responder { return guardedResponder{i, v} })
	c.Chunkers = members(c, chunkPhase, instances, in, func(i *Instance, v Chunker) Chunker {
		wants, _ := v.(Chooser)
		return guardedChunker{i, v, chooser{wants}}
	})
	for _, v := range c.Chunkers {
		wants, _ := v.(Chooser)
		c.choosers = append(c.choosers, chooser{wants})
	}
	c.Finishers = members(c, donePhase, instances, in, func(i *Instance, v Finisher) Finisher { return guardedFinisher{i, v} })
	for n := len(instances) - 1; n >= 0; n-- {
		if v, ok := instances[n].Plugin.(Closer); ok {
			c.Closers = append(c.Closers, v)
		}
	}
	return c
}

// members are the instances that take part in a phase, in their order there, each behind its guard if it needs one. in are the phases of
// each instance.
func members[P any](c *Chain, phase int, instances []Instance, in []phaseSet, guard func(*Instance, P) P) []P {
	if len(c.places[phase]) == 0 {
		return nil
	}
	list := make([]P, 0, len(c.places[phase]))
	for n := range instances {
		if lastFirst(phase) {
			n = len(instances) - 1 - n
		}
		if !in[n].contains(phase) {
			continue
		}
		i := &instances[n]
		v := i.Plugin.(P)
		if i.guarded() {
			v = guard(i, v)
		}
		list = append(list, v)
	}
	return list
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
	x.leaveGates()
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
	note := ""
	if f == fault.FieldTooLarge {
		note = "Request Header Or Cookie Too Large"
	}
	x.answerPage(f.Status, note)
	x.Response.Source = FromGateway
}

func (x *Exchange) stop() Verdict {
	x.stopped = true
	return Stop
}
