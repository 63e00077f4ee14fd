package phase

// Instance is a plugin in a chain together with what _meta says of it (contract section 2.7).
type Instance struct {
	Name   string
	Plugin any
	// Kind is the number of the plugin's kind in the list of all, Priority its place among the plugins of other chains.
	Kind     uint8
	Priority int
	// Prefer passes the plugin over where the route has it too (see Kind.PreferRoute).
	Prefer bool
	// When, if not nil, must hold for the exchange, or the plugin is passed over in all phases. It is asked once, in the first phase
	// that the plugin takes part in, so that what the plugin began it also ends. Slot remembers the answer; see Env.Slot.
	When Predicate
	Slot int
	// ErrorBody, if not nil, replaces the body of the plugin's own answers with a status of 400 or more; ErrorType is its content type.
	ErrorBody []byte
	ErrorType string
}

// The guards put _meta between the chain and a plugin, one per phase, so that plugins without it pay nothing.

type guardedRewriter struct {
	*Instance
	next Rewriter
}

func (g guardedRewriter) Rewrite(x *Exchange) Verdict {
	if !g.applies(x) {
		return Continue
	}
	return g.answered(x, g.next.Rewrite(x))
}

type guardedAccessor struct {
	*Instance
	next Accessor
}

func (g guardedAccessor) Access(x *Exchange) Verdict {
	if !g.applies(x) {
		return Continue
	}
	return g.answered(x, g.next.Access(x))
}

type guardedSender struct {
	*Instance
	next Sender
}

func (g guardedSender) Send(x *Exchange) Verdict {
	if !g.applies(x) {
		return Continue
	}
	return g.answered(x, g.next.Send(x))
}

type guardedReceiver struct {
	*Instance
	next Receiver
}

func (g guardedReceiver) Receive(x *Exchange, lines []Field) {
	if g.applies(x) {
		g.next.Receive(x, lines)
	}
}

type guardedResponder struct {
	*Instance
	next Responder
}

func (g guardedResponder) Response(x *Exchange) {
	if g.applies(x) {
		g.next.Response(x)
	}
}

type guardedChunker struct {
	*Instance
	next    Chunker
	chooser chooser
}

func (g guardedChunker) Wants(x *Exchange) bool { return g.applies(x) && g.chooser.wants(x) }

func (g guardedChunker) Chunk(x *Exchange, p []byte, last bool) ([]byte, error) {
	if !g.applies(x) {
		return p, nil
	}
	return g.next.Chunk(x, p, last)
}

type guardedFinisher struct {
	*Instance
	next Finisher
}

func (g guardedFinisher) Done(x *Exchange) {
	if g.applies(x) {
		g.next.Done(x)
	}
}

func (i *Instance) guarded() bool { return i.When != nil || i.ErrorBody != nil || i.Prefer }

// What Instance.Slot holds once When has been asked.
const (
	unasked int64 = iota
	holds
	fails
)

func (i *Instance) applies(x *Exchange) bool {
	if i.Prefer && x.runs(i.Kind) {
		return false
	}
	if i.When == nil {
		return true
	}
	s := x.Slot(i.Slot)
	if s.Int == unasked {
		s.Int = fails
		if i.When.True(x) {
			s.Int = holds
		}
	}
	return s.Int == holds
}

func (i *Instance) answered(x *Exchange, v Verdict) Verdict {
	if v == Stop && i.ErrorBody != nil && x.Response.Status >= 400 {
		x.Answer(x.Response.Status, i.ErrorType, i.ErrorBody)
	}
	return v
}
