package snapshot

// retiree is something that was part of the snapshots with serials in [born, died) and is to be closed when the last of them has lost
// its readers.
type retiree struct {
	born, died uint64
	close      func()
}

// graveyard remembers what is still in use by exchanges of former snapshots. It belongs to the config goroutine.
type graveyard struct {
	former   []*Snapshot // published once, replaced since, not known to be drained
	retirees []retiree
}

// bury takes note of a replaced snapshot.
func (g *graveyard) bury(s *Snapshot) {
	if s != nil {
		g.former = append(g.former, s)
	}
}

// add takes note of something that is not part of the snapshot with serial died any more.
func (g *graveyard) add(born, died uint64, close func()) {
	g.retirees = append(g.retirees, retiree{born, died, close})
}

// collect returns what can be closed now. A long stream keeps its own snapshot and that snapshot's parts, and nothing that
// came and went later.
func (g *graveyard) collect() (closing []func()) {
	pinned := g.former[:0]
	for _, s := range g.former {
		if s.pinned() {
			pinned = append(pinned, s)
		}
	}
	clear(g.former[len(pinned):])
	g.former = pinned

	waiting := g.retirees[:0]
	for _, r := range g.retirees {
		if g.needed(r) {
			waiting = append(waiting, r)
		} else {
			closing = append(closing, r.close)
		}
	}
	clear(g.retirees[len(waiting):])
	g.retirees = waiting
	return closing
}

func (g *graveyard) needed(r retiree) bool {
	for _, s := range g.former {
		if s.serial >= r.born && s.serial < r.died {
			return true
		}
	}
	return false
}
