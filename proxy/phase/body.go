package phase

// Receive runs the receive phase: of the route, then of the global rules, each last plugin first. The lines of Response.Header before the
// one at mine are not the upstream's.
func (x *Exchange) Receive(mine int) {
	lines := x.Response.Header.fields
	lines = lines[min(mine, len(lines)):]
	if x.joined {
		for w := x.walk(receivePhase); w.next(); {
			w.chain.Receivers[w.index].Receive(x, lines)
		}
	} else if x.chain != nil {
		for _, p := range x.chain.Receivers {
			p.Receive(x, lines)
		}
	}
	if x.global != nil {
		for _, p := range x.global.Receivers {
			p.Receive(x, lines)
		}
	}
}

// What Exchange.chunking holds once it is known whether a plugin wants the body.
const (
	unknownChunking = iota
	wanted
	unwanted
)

// HasChunkers says whether any plugin wants to see the body. It is asked after the response phase, and what it says then stays.
func (x *Exchange) HasChunkers() bool {
	if x.chunking == unknownChunking {
		x.chunking = unwanted
		if x.wantsChunks() {
			x.chunking = wanted
		}
	}
	return x.chunking == wanted
}

func (x *Exchange) wantsChunks() bool {
	if x.joined {
		for w := x.walk(chunkPhase); w.next(); {
			if w.chain.choosers[w.index].wants(x) {
				return true
			}
		}
	} else if x.chain.wants(x) {
		return true
	}
	return x.global.wants(x)
}

// wants says whether one of the chunk plugins of c wants the body. c may be nil.
func (c *Chain) wants(x *Exchange) bool {
	if c == nil {
		return false
	}
	for i := range c.choosers {
		if c.choosers[i].wants(x) {
			return true
		}
	}
	return false
}

// chooser is a Chooser, or none: for a plugin that wants every body.
type chooser struct{ Chooser }

func (c chooser) wants(x *Exchange) bool { return c.Chooser == nil || c.Wants(x) }

// Chunk passes one piece of the body through every chunk plugin.
func (x *Exchange) Chunk(p []byte, last bool) ([]byte, error) {
	var err error
	for w := x.walk(chunkPhase); w.next(); {
		if p, err = w.chain.Chunkers[w.index].Chunk(x, p, last); err != nil {
			return nil, err
		}
	}
	if x.global != nil {
		for _, k := range x.global.Chunkers {
			if p, err = k.Chunk(x, p, last); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}
