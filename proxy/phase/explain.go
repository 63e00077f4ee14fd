package phase

import "iter"

// Explainer is implemented by an Accessor that decides where exchanges go.
type Explainer interface {
	// Explain says what Access would decide for x. It sets x.Upstream and x.Branch as Access would, and changes nothing that outlives x:
	// no counter, no place in a sequence. A bucket that x.Decision has is the one that is to decide. Nil says that Access would leave the exchange alone and that there is nothing to tell.
	Explain(x *Exchange) *Choice
}

// Choice is the decision of an Explainer, in the form in which the control API shows it.
type Choice struct {
	// Plugin is set by the engine.
	Plugin string `json:"plugin"`
	// Rule is the index of the rule that decides, -1 when none does.
	Rule     int            `json:"rule"`
	Branches []ChoiceBranch `json:"branches"`
	// Next is the branch that the next such request gets, "" when it stays with the route's own upstream.
	Next string `json:"next"`
	// Bucket is what leads to Next (see Bucket), "" when nothing does.
	Bucket string `json:"bucket,omitempty"`
	// Open says that the request leaves it open where it goes; Why tells what will decide.
	Open bool   `json:"open,omitempty"`
	Why  string `json:"why"`
	// Status and Answer are what Access would answer instead of choosing; Status is 0 when it would not.
	Status int    `json:"status,omitempty"`
	Answer string `json:"answer,omitempty"`
}

// ChoiceBranch is one of the possibilities.
type ChoiceBranch struct {
	Name   string `json:"name"`
	Weight uint64 `json:"weight"`
	// Share is the part of all requests that it gets, 0 to 1.
	Share float64 `json:"share"`
	// Upstream is the name of where the branch sends; "" for the route's own.
	Upstream string `json:"upstream,omitempty"`
}

// Preview makes x an exchange of the consumer p, nil for nobody, as it is when the access phase begins, without running a plugin. It
// comes after Enter. The plugins of authentication may have found another consumer, or nobody, and others may have changed the request.
func (x *Exchange) Preview(p *Principal, group *Chain) {
	if p == nil {
		return
	}
	x.AttachPrincipal(p)
	if p.Chain == nil && group == nil {
		return
	}
	x.own, x.group, x.joined = p.Chain, group, true
	x.reserve(x.own)
	x.reserve(x.group)
}

// Standing is how one plugin of a chain stands to an exchange.
type Standing struct {
	// Phases are those in which it runs, in the order in which an exchange comes to them.
	Phases []string
	// FilteredOut says that its _meta.filter does not hold, Preferred that it is a global rule's and the route has the plugin too.
	FilteredOut, Preferred bool
}

// Standing asks how the plugin kind of c stands to x, one of whose chains c is. After Preview only, or after Enter without a consumer.
func (x *Exchange) Standing(c *Chain, kind uint8) Standing {
	s := Standing{Phases: []string{}}
	if c == nil {
		return s
	}
	names := [phases]string{"rewrite", "access", "send", "receive", "response", "chunk", "done"}
	for phase, places := range c.places {
		for _, p := range places {
			if p.kind == kind && x.takesPart(c, phase, kind) {
				s.Phases = append(s.Phases, names[phase])
			}
		}
	}
	if i := c.instance(kind); i != nil && !i.applies(x) {
		s.Preferred = i.Prefer && x.runs(i.Kind)
		s.FilteredOut = !s.Preferred
	}
	return s
}

// takesPart: before the rewrite phase of the route has ended nobody knows the consumer, so that the route's plugins run it even when the
// consumer has others, and those of the consumer run it only where the route has none. See Join.
func (x *Exchange) takesPart(c *Chain, phase int, kind uint8) bool {
	if !x.joined || c == x.global {
		return true
	}
	if phase == rewritePhase {
		switch {
		case c == x.chain:
			return true
		case x.chain != nil && x.chain.has.contains(kind):
			return false
		}
	}
	strength := 0
	switch c {
	case x.own:
		strength = 2
	case x.group:
		strength = 1
	}
	return !x.hidden(strength, kind)
}

// instance returns what _meta says of the plugin kind of c, nil when it says nothing that concerns an exchange.
func (c *Chain) instance(kind uint8) *Instance {
	for phase, places := range c.places {
		for n, p := range places {
			if p.kind != kind {
				continue
			}
			if g, ok := c.member(phase, n).(interface{ guard() *Instance }); ok {
				return g.guard()
			}
		}
	}
	return nil
}

func (i *Instance) guard() *Instance { return i }

// member returns plugin n of a phase, behind its guard if it has one.
func (c *Chain) member(phase, n int) any {
	switch phase {
	case rewritePhase:
		return c.Rewriters[n]
	case accessPhase:
		return c.Accessors[n]
	case sendPhase:
		return c.Senders[n]
	case receivePhase:
		return c.Receivers[n]
	case responsePhase:
		return c.Responders[n]
	case chunkPhase:
		return c.Chunkers[n]
	}
	return c.Finishers[n]
}

// Decider is a plugin of the access phase that decides where an exchange goes.
type Decider struct {
	Explainer
	Kind uint8
	// Global says that it is a global rule's.
	Global bool
}

// Deciders returns those of x in the order of execution, without those that are passed over. After Preview only, or after Enter without a
// consumer.
func (x *Exchange) Deciders() iter.Seq[Decider] {
	return func(yield func(Decider) bool) {
		if c := x.global; c != nil {
			for n := range c.Accessors {
				if e := x.explainer(c, n); e != nil && !yield(Decider{e, c.places[accessPhase][n].kind, true}) {
					return
				}
			}
		}
		for w := x.walk(accessPhase); w.next(); {
			if e := x.explainer(w.chain, w.index); e != nil && !yield(Decider{e, w.kind, false}) {
				return
			}
		}
	}
}

// explainer returns plugin n of the access phase of c if it runs and explains itself.
func (x *Exchange) explainer(c *Chain, n int) Explainer {
	var plugin any = c.Accessors[n]
	if g, ok := plugin.(guardedAccessor); ok {
		if !g.applies(x) {
			return nil
		}
		plugin = g.next
	}
	e, _ := plugin.(Explainer)
	return e
}
