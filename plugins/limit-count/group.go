package limitcount

import (
	"errors"
	"sync"
)

// groups keeps the configurations of one group equal: counters that two of them share would mean nothing otherwise.
type groups struct {
	mu      sync.Mutex
	members map[*plugin]member
}

type member struct{ group, owner, conf string }

func newGroups() *groups { return &groups{members: map[*plugin]member{}} }

// errMismatch is the contract's text (section 4.2).
var errMismatch = errors.New("group conf mismatched")

// join makes p, of the document owner, a member of the group. It is refused when another document in the group says something else; what
// the same document has said before is on its way out.
func (g *groups) join(group, owner, conf string, p *plugin) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.members {
		if m.group == group && m.owner != owner && m.conf != conf {
			return errMismatch
		}
	}
	g.members[p] = member{group, owner, conf}
	return nil
}

func (g *groups) leave(p *plugin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.members, p)
}
