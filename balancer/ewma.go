package balancer

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ewmaDecay is the time after which an old response time counts 1/e
// (contract 3.2).
const ewmaDecay = 10 * time.Second

// ewma picks the better of two random members: the lower response time, decayed
// by the time that has passed since it was measured, so that a slow member is
// asked again after a while.
type ewma struct {
	ranked[*ewmaGroup]
	byIndex []*latency // by endpoint; nil where an endpoint is never picked
	now     func() time.Duration
}

type ewmaGroup struct {
	members []member
	state   []*latency
	now     func() time.Duration
}

// latency packs the average (float32 seconds, high half) with the time of its
// last change (milliseconds modulo 2^32, low half): one word, so that both
// change together. 0 means never measured.
type latency struct {
	word atomic.Uint64
	_    [cacheLine - 8]byte
}

// monotonic returns a clock that starts now.
func monotonic() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

func newEWMA(eps []*Endpoint, prev Picker, now func() time.Duration) *ewma {
	p := &ewma{byIndex: make([]*latency, len(eps)), now: now}
	known := make(map[string]*latency)
	if old, ok := prev.(*ewma); ok {
		p.now = old.now // the packed times are on this clock
		for i := range old.members {
			m := &old.members[i]
			known[m.ID()] = old.byIndex[m.index]
		}
	}
	first := averageOf(known, p.now())
	p.ranked = rank(eps, func(_ int, members []member) *ewmaGroup {
		g := &ewmaGroup{members: members, state: make([]*latency, len(members)), now: p.now}
		for i := range members {
			l := known[members[i].ID()]
			if l == nil {
				l = &latency{}
				l.word.Store(first)
			}
			g.state[i] = l
			p.byIndex[members[i].index] = l
		}
		return g
	})
	return p
}

// averageOf is the state of a newcomer: the average of the others. Without it,
// all requests would rush to the new endpoint until its first answer.
func averageOf(known map[string]*latency, now time.Duration) uint64 {
	var sum float64
	n := 0
	for _, l := range known {
		if l.word.Load() != 0 {
			sum += l.score(now)
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return pack(sum/float64(n), now)
}

func pack(seconds float64, now time.Duration) uint64 {
	return uint64(math.Float32bits(float32(seconds)))<<32 | uint64(uint32(now.Milliseconds()))
}

// unpack returns the average and what is left of it after the decay.
func unpack(word uint64, now time.Duration) (seconds, left float64) {
	elapsed := uint32(now.Milliseconds()) - uint32(word)
	// A negative difference is a concurrent write with a later clock reading.
	if int32(elapsed) < 0 {
		elapsed = 0
	}
	left = math.Exp(-float64(elapsed) / float64(ewmaDecay.Milliseconds()))
	return float64(math.Float32frombits(uint32(word >> 32))), left
}

// score is the decayed response time in seconds.
func (l *latency) score(now time.Duration) float64 {
	seconds, left := unpack(l.word.Load(), now)
	return seconds * left
}

// observe weighs the sample by the time since the last change. Of several
// samples in one millisecond the first counts: it stands for the others.
func (l *latency) observe(rtt, now time.Duration) {
	sample := max(rtt, time.Microsecond).Seconds()
	for {
		old := l.word.Load()
		next := pack(sample, now)
		if old != 0 {
			seconds, left := unpack(old, now)
			next = pack(seconds*left+sample*(1-left), now)
		}
		if next == old || l.word.CompareAndSwap(old, next) {
			return
		}
	}
}

// Observe implements Observer.
func (p *ewma) Observe(i int, rtt time.Duration) {
	if uint(i) < uint(len(p.byIndex)) && p.byIndex[i] != nil {
		p.byIndex[i].observe(rtt, p.now())
	}
}

func (g *ewmaGroup) pick(tried *Tried, _ uint64, need demand) int {
	k := len(g.members)
	a := g.usableFrom(below(rand.Uint64(), k), -1, tried, need)
	if a < 0 {
		return -1
	}
	// Any of the k-1 others with the same chance, as far as they are usable.
	b := g.usableFrom((a+1+below(rand.Uint64(), k-1))%k, a, tried, need)
	if b < 0 {
		return g.members[a].index
	}
	now := g.now()
	if g.state[b].score(now) < g.state[a].score(now) {
		a = b
	}
	return g.members[a].index
}

// usableFrom returns the first usable member other than not, going round from
// at, or -1.
func (g *ewmaGroup) usableFrom(at, not int, tried *Tried, need demand) int {
	for range g.members {
		if at != not && g.members[at].usable(tried, need) {
			return at
		}
		if at++; at == len(g.members) {
			at = 0
		}
	}
	return -1
}
