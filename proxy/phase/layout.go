package phase

import (
	"encoding/binary"
	"sync"
)

// layout is what chains of the same kinds with the same priorities have in common. It is immutable.
type layout struct {
	Names []string // every plugin, in the order of execution

	places [phases][]place // of the instances of each phase, in their order there
	has    kindSet         // the plugins that the document configures, even to switch them off
	runs   kindSet         // those that are switched on
}

// The phases, as indices of layout.places.
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

// lastFirst says that the last plugin is the first in the phase: what the answer passes on its way back.
func lastFirst(phase int) bool {
	return phase == receivePhase || phase == responsePhase || phase == chunkPhase
}

// place is where an instance stands among those of other chains.
type place struct {
	priority int
	kind     uint8
}

// kindSet is a set of plugin kinds.
type kindSet [4]uint64

func (s *kindSet) add(kind uint8)           { s[kind>>6] |= 1 << (kind & 63) }
func (s *kindSet) contains(kind uint8) bool { return s[kind>>6]>>(kind&63)&1 != 0 }

// phaseSet is a set of phases.
type phaseSet uint8

func (s phaseSet) contains(phase int) bool { return s>>phase&1 != 0 }

// phasesOf returns the phases that a plugin implements.
func phasesOf(plugin any) (s phaseSet) {
	add := func(phase int, implements bool) {
		if implements {
			s |= 1 << phase
		}
	}
	_, ok := plugin.(Rewriter)
	add(rewritePhase, ok)
	_, ok = plugin.(Accessor)
	add(accessPhase, ok)
	_, ok = plugin.(Sender)
	add(sendPhase, ok)
	_, ok = plugin.(Receiver)
	add(receivePhase, ok)
	_, ok = plugin.(Responder)
	add(responsePhase, ok)
	_, ok = plugin.(Chunker)
	add(chunkPhase, ok)
	_, ok = plugin.(Finisher)
	add(donePhase, ok)
	return s
}

// layoutOf lays out instances, of which those of the kinds off are switched off. in are the phases of each.
func layoutOf(instances []Instance, off []uint8, in []phaseSet) *layout {
	l := &layout{}
	for _, k := range off {
		l.has.add(k)
	}
	for n := range instances {
		i := &instances[n]
		l.Names = append(l.Names, i.Name)
		l.has.add(i.Kind)
		l.runs.add(i.Kind)
	}
	for p := range l.places {
		for n := range instances {
			if lastFirst(p) {
				n = len(instances) - 1 - n
			}
			if in[n].contains(p) {
				l.places[p] = append(l.places[p], place{instances[n].Priority, instances[n].Kind})
			}
		}
	}
	return l
}

// Layouts lets chains share what they have in common: of many routes most have the same plugins. It is safe for concurrent use; nil
// shares nothing.
type Layouts struct {
	mu    sync.RWMutex
	known map[string]*layout
}

// maxLayouts bounds how many are remembered. With one more the others are forgotten, of which many may have no chain any more.
const maxLayouts = 1024

// of is layoutOf, or the same one as before.
func (l *Layouts) of(instances []Instance, off []uint8, in []phaseSet) *layout {
	if l == nil {
		return layoutOf(instances, off, in)
	}
	var buf [256]byte
	key := append(binary.AppendUvarint(buf[:0], uint64(len(off))), off...)
	for n := range instances {
		i := &instances[n]
		key = append(binary.AppendVarint(append(key, i.Kind, byte(in[n])), int64(i.Priority)), i.Name...)
		key = append(key, 0) // ends the name
	}
	l.mu.RLock()
	found := l.known[string(key)]
	l.mu.RUnlock()
	if found != nil {
		return found
	}
	found = layoutOf(instances, off, in)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) == maxLayouts {
		l.known = map[string]*layout{}
	}
	l.known[string(key)] = found
	return found
}
