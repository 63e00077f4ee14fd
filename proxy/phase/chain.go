package phase

import "headgate/proxy/fault"

// Chain is the plugins of one route (or of the global rules), split by phase and sorted. It is built once and immutable.
type Chain struct {
	Names     []string // every plugin, in the order of execution
	Rewriters []Rewriter
	Accessors []Accessor
	Senders   []Sender
	// Responders and Chunkers run last plugin first; they are stored in that order.
	Responders []Responder
	Chunkers   []Chunker
	Finishers  []Finisher
	Closers    []Closer
}

// NewChain splits instances, which are in the order of execution, by the phases they implement.
func NewChain(instances []Instance) *Chain {
	c := &Chain{}
	for n := range instances {
		i := &instances[n]
		c.Names = append(c.Names, i.Name)
		if v, ok := i.Plugin.(Rewriter); ok {
			if i.guarded() {
				v = guardedRewriter{i, v}
			}
			c.Rewriters = append(c.Rewriters, v)
		}
		if v, ok := i.Plugin.(Accessor); ok {
			if i.guarded() {
				v = guardedAccessor{i, v}
			}
			c.Accessors = append(c.Accessors, v)
		}
		if v, ok := i.Plugin.(Sender); ok {
			if i.guarded() {
				v = guardedSender{i, v}
			}
			c.Senders = append(c.Senders, v)
		}
		if v, ok := i.Plugin.(Finisher); ok {
			if i.guarded() {
				v = guardedFinisher{i, v}
			}
			c.Finishers = append(c.Finishers, v)
		}
	}
	for n := len(instances) - 1; n >= 0; n-- {
		i := &instances[n]
		if v, ok := i.Plugin.(Responder); ok {
			if i.guarded() {
				v = guardedResponder{i, v}
			}
			c.Responders = append(c.Responders, v)
		}
		if v, ok := i.Plugin.(Chunker); ok {
			if i.guarded() {
				v = guardedChunker{i, v}
			}
			c.Chunkers = append(c.Chunkers, v)
		}
		if v, ok := i.Plugin.(Closer); ok {
			c.Closers = append(c.Closers, v)
		}
	}
	return c
}

// Rewrite runs the rewrite phase of the route's chain (the global one when global is set) and says whether to go on.
func (x *Exchange) Rewrite(global bool) Verdict {
	c := x.pick(global)
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

// Access runs the access phase, as Rewrite does.
func (x *Exchange) Access(global bool) Verdict {
	c := x.pick(global)
	if c == nil {
		return Continue
	}
	for _, p := range c.Accessors {
		if p.Access(x) == Stop {
			return x.stop()
		}
	}
	return Continue
}

// Send runs the send phase of both chains before an attempt.
func (x *Exchange) Send() Verdict {
	for _, c := range [2]*Chain{x.global, x.chain} {
		if c == nil {
			continue
		}
		for _, p := range c.Senders {
			if p.Send(x) == Stop {
				return x.stop()
			}
		}
	}
	return Continue
}

// Respond runs the response phase: the route's chain, then the global one, each last plugin first.
func (x *Exchange) Respond() {
	for _, c := range [2]*Chain{x.chain, x.global} {
		if c == nil {
			continue
		}
		for _, p := range c.Responders {
			p.Response(x)
		}
	}
}

// HasChunkers says whether any plugin wants to see the body.
func (x *Exchange) HasChunkers() bool {
	return x.chain != nil && len(x.chain.Chunkers) > 0 || x.global != nil && len(x.global.Chunkers) > 0
}

// Chunk passes one piece of the body through every chunk plugin.
func (x *Exchange) Chunk(p []byte, last bool) ([]byte, error) {
	var err error
	for _, c := range [2]*Chain{x.chain, x.global} {
		if c == nil {
			continue
		}
		for _, k := range c.Chunkers {
			if p, err = k.Chunk(x, p, last); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// Finish runs the done phase, the first time it is called; later calls do nothing. A plugin that panics does not keep the others
// from being told; panicked is called with what it threw.
func (x *Exchange) Finish(panicked func(any)) {
	if x.done {
		return
	}
	x.done = true
	for _, c := range [2]*Chain{x.chain, x.global} {
		if c == nil {
			continue
		}
		for i := range c.Finishers {
			x.finishOne(c.Finishers[i], panicked)
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

func (x *Exchange) pick(global bool) *Chain {
	if global {
		return x.global
	}
	return x.chain
}
