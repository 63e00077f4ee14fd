package balancer

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Rendezvous gives each key the branch that bids most for it: weighted rendezvous hashing, in which a bid depends on nothing but the
// key, the branch's identity and its weight. It is immutable.
//
// With w a branch's weight and W the sum, a key belongs to the branch with probability w/W, independently of other keys. Nothing is
// remembered, and yet little moves: when one weight changes, the keys that move are those that the branch gains or loses, which is
// the least that the new shares allow; when several change, a key only ever moves to a branch whose weight has grown by a larger
// factor than that of the branch it leaves.
//
// A bid is the arrival time of an exponential race, -ln(u)/w with u drawn from key and identity; the first one wins. All of it is
// integer arithmetic, so that every platform comes to the same decision.
type Rendezvous struct {
	// bidders are those with a weight above 0, in the order of their seeds: ties do not depend on how the branches were listed.
	bidders []bidder
}

type bidder struct {
	seed, weight uint64
	branch       int
}

// maxBid is the highest weight that counts.
const maxBid = 1<<63 - 1

// NewRendezvous returns a rendezvous for branches; branch i has the identity ids[i] and the weight weights[i], of which 2^63-1 counts
// as the highest. A branch of weight 0 is never picked.
func NewRendezvous(ids []string, weights []uint64) *Rendezvous {
	r := &Rendezvous{}
	for i, w := range weights {
		if w > 0 {
			r.bidders = append(r.bidders, bidder{xxhash.Sum64String(ids[i]), min(w, maxBid), i})
		}
	}
	slices.SortStableFunc(r.bidders, func(a, b bidder) int { return cmp.Compare(a.seed, b.seed) })
	return r
}

// Pick returns the branch of key, or -1 when every weight is 0. Branches that passed has do not bid (nil: all do): their keys are
// shared out among the others by weight, and nobody else's move. It allocates nothing.
func (r *Rendezvous) Pick(key uint64, passed *Tried) int {
	key = spreadKey(key)
	leader := race{won: -1}
	for i := range r.bidders {
		b := &r.bidders[i]
		if passed.Has(b.branch) {
			continue
		}
		if t, ahead := leader.ahead(b, key); ahead {
			leader = race{t, b.weight, b.branch}
		}
	}
	return leader.won
}

// mix is the finalizer of splitmix64: every bit of x moves half of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// spreadKey spreads keys that are small numbers.
func spreadKey(key uint64) uint64 { return mix(key + 0x9e3779b97f4a7c15) }

// race is who has been first so far, and when, in the race for a key; won is -1 while nobody has come.
type race struct {
	time, weight uint64
	won          int
}

// ahead returns when b arrives, if that is before everybody else so far. key comes from spreadKey.
func (r *race) ahead(b *bidder, key uint64) (time uint64, ok bool) {
	u := mix(b.seed ^ key)
	// -ln(u) is at least 1-u, which costs no logarithm and settles most bids.
	if r.won >= 0 && !sooner(lowest(u), b.weight, r.time, r.weight) {
		return 0, false
	}
	time = arrival(u)
	return time, r.won < 0 || sooner(time, b.weight, r.time, r.weight)
}

// sooner compares t1/w1 < t2/w2. The products stay below 2^127.
func sooner(t1, w1, t2, w2 uint64) bool {
	hi1, lo1 := bits.Mul64(t1, w2)
	hi2, lo2 := bits.Mul64(t2, w1)
	return hi1 < hi2 || hi1 == hi2 && lo1 < lo2
}

// Times have 58 binary places: the largest, 64*ln(2), takes the other 6 bits.
const (
	timePlaces = 58
	ln2        = 0x2c5c85fdf473de7 // ln(2)
)

// sixteenths has -ln(c/16) for c from 9 to 16.
var sixteenths = [8]uint64{
	0x24d2c42269b724f, 0x1e148a1a2726cd9, 0x17fafa3bd8151bf, 0x1269621134db928,
	0xd49f69e456cf1b, 0x88bc74113f23df, 0x421662d678e81a, 0,
}

// lowest returns 1-u for the u of arrival, rounded down: never more than arrival(u).
func lowest(u uint64) uint64 { return -max(u, 1) >> (64 - timePlaces) }

// arrival returns -ln(u) for u/2^64, at least one unit in the last place; a u of 0 counts as 1. The error is below 40 units.
//
// u is brought to a fraction f in [1/2, 1), and f compared with c, the next higher sixteenth: -ln(f) is -ln(c) + 2*atanh(z) with
// z = (c-f)/(c+f) below 1/17, whose odd powers vanish quickly.
func arrival(u uint64) uint64 {
	u = max(u, 1)
	shift := bits.LeadingZeros64(u)
	f := u << shift // 64 places
	i := f >> 60 & 7
	c := i + 9
	difference, sum := c<<60-f, c<<59+f>>1                 // 64 and 63 places; 16<<60 wraps to 0, as 2^64-f should
	z, _ := bits.Div64(difference>>1, difference<<63, sum) // 64 places
	square := times(z, z)
	const whole = 1<<64 - 1
	series := times(square, whole/13)
	for _, reciprocal := range [...]uint64{whole / 11, whole / 9, whole / 7, whole / 5, whole / 3} {
		series = times(square, reciprocal+series)
	}
	t := uint64(shift)*ln2 + sixteenths[i] + (z+times(z, series))>>(64-timePlaces-1)
	return max(t, lowest(u), 1)
}

// times multiplies two numbers below 1 with 64 places.
func times(a, b uint64) uint64 {
	hi, _ := bits.Mul64(a, b)
	return hi
}
