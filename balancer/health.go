package balancer

import "sync/atomic"

// Down is the bit of a Health's word that leaves its endpoints out.
const Down uint64 = 1 << 63

// WholeShare is the share of an endpoint that gets all that its weight gives
// it; see Health.SetShare.
const WholeShare = 1 << 16

// Health is the verdict on an endpoint, shared by all the versions of it that
// requests may see. It is one word, so that a verdict and the evidence for it
// change together: pickers read the bit Down, the other bits belong to whoever
// judges. The zero value is healthy.
type Health struct {
	word atomic.Uint64
	// lacks is what the share lacks of WholeShare.
	lacks atomic.Uint32
	// Ramps says that the share may be less than whole at times. It is fixed
	// before a picker is made; without it SetShare has no effect.
	Ramps bool
}

// Healthy tells whether the bit Down is not set.
func (h *Health) Healthy() bool { return h.word.Load()&Down == 0 }

// Set sets or clears the bit Down.
func (h *Health) Set(ok bool) {
	if ok {
		h.word.And(^Down)
	} else {
		h.word.Or(Down)
	}
}

// Load returns the word.
func (h *Health) Load() uint64 { return h.word.Load() }

// CompareAndSwap replaces the word by next if it still is old.
func (h *Health) CompareAndSwap(old, next uint64) bool { return h.word.CompareAndSwap(old, next) }

// SetShare makes the endpoint take share/WholeShare of the picks that fall to
// it, at least one in WholeShare; the others of its priority take the rest.
func (h *Health) SetShare(share uint32) {
	h.lacks.Store(WholeShare - min(max(share, 1), WholeShare))
}

// Share returns what SetShare has set, WholeShare at first.
func (h *Health) Share() uint32 { return WholeShare - h.lacks.Load() }

// demand is what a pick asks of a member: a share of at least so much, or one
// of the two below.
type demand uint32

const (
	healthy demand = 0              // any share
	anyone  demand = WholeShare + 1 // health and breakers are ignored
	// guarded is added when the gates have to be asked: as long as all of them are whole no pick goes near them.
	guarded demand = 1 << 20
)

// anyone says that health and breakers are ignored.
func (d demand) anyone() bool { return d&^guarded == anyone }

// usable tells whether m may serve the attempt.
func (m *member) usable(tried *Tried, need demand) bool {
	return m.meets(need) && !tried.Has(m.index)
}

func (m *member) meets(need demand) bool {
	if need == healthy {
		return m.health.Healthy()
	}
	return m.meetsAll(need)
}

// meetsAll: what is in quarantine serves nobody, even if it is the last one.
func (m *member) meetsAll(need demand) bool {
	gates, share := need&guarded != 0, need&^guarded
	if share == anyone {
		return !gates || m.gate.Quarantined() == 0
	}
	return m.health.Healthy() && (share == healthy || demand(m.health.Share()) >= share) && (!gates || m.gate.offers(share))
}

// drawDemand turns a well-spread x into a demand that a share of s meets with
// the chance s/WholeShare.
func drawDemand(x uint64) demand { return demand(1 + x>>48) }
