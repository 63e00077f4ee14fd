package balancer

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

const (
	// pointsPerWeight is the number of points on the ring per weight/gcd
	// (contract 3.2).
	pointsPerWeight = 160

	// maxPoints bounds one ring. Beyond it points are dealt by share, at least
	// one to each member: the ring is coarser.
	maxPoints = 1 << 16
)

// hashRing keeps equal keys together by consistent hashing: a key belongs to
// the first point at or after its hash. The points of a member depend on its
// identity alone, so one that comes or goes moves only its own share (as long
// as the gcd of the weights stays).
type hashRing struct {
	ranked[*ring]
}

type ring struct {
	members []member
	points  []uint64 // ascending
	owners  []int32  // owners[i] is the member of points[i]
	// first[h>>shift] is the first point that is not below that range of
	// hashes: about one point lies in each.
	first []int32
	shift int
}

func newHashRing(eps []*Endpoint) *hashRing {
	h := &hashRing{rank(eps, func(_ int, members []member) *ring { return newRing(members) })}
	h.keyed = true
	return h
}

func newRing(members []member) *ring {
	type point struct {
		hash  uint64
		owner int32
	}
	var points []point
	for owner, n := range pointCounts(members) {
		h := xxhash.Sum64String(members[owner].ID())
		for j := range n {
			points = append(points, point{mix(h + j*0x9e3779b97f4a7c15), int32(owner)})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		if c := cmp.Compare(a.hash, b.hash); c != 0 {
			return c
		}
		return cmp.Compare(members[a.owner].ID(), members[b.owner].ID())
	})
	r := &ring{members: members, points: make([]uint64, len(points)), owners: make([]int32, len(points))}
	for i, p := range points {
		r.points[i], r.owners[i] = p.hash, p.owner
	}
	r.shift = 64 - bits.Len(uint(len(points)))
	r.first = make([]int32, 1<<(64-r.shift))
	at := 0
	for i := range r.first {
		for at < len(points) && points[at].hash < uint64(i)<<r.shift {
			at++
		}
		r.first[i] = int32(at)
	}
	return r
}

// pointCounts returns how many points each member gets.
func pointCounts(members []member) []uint64 {
	counts := make([]uint64, len(members))
	for i := range members {
		counts[i] = members[i].weight
	}
	counts = clamp(counts)
	var gcd, total uint64
	for _, w := range counts {
		gcd = greatestDivisor(gcd, w)
		total += w
	}
	capped := total/gcd > maxPoints/pointsPerWeight
	for i, w := range counts {
		if capped {
			counts[i] = max(uint64(float64(w)/float64(total)*maxPoints), 1)
		} else {
			counts[i] = w / gcd * pointsPerWeight
		}
	}
	return counts
}

// mix is the finalizer of splitmix64: every bit of x moves half of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (r *ring) pick(tried *Tried, key uint64, need demand) int {
	hash := mix(key)
	at := int(r.first[hash>>r.shift])
	for at < len(r.points) && r.points[at] < hash {
		at++
	}
	if at == len(r.points) {
		at = 0
	}
	if m := &r.members[r.owners[at]]; m.usable(tried, need) {
		return m.index
	}
	// The walk may be as long as the ring: start it only if it ends.
	if !slices.ContainsFunc(r.members, func(m member) bool { return m.usable(tried, need) }) {
		return -1
	}
	for range r.points {
		if at++; at == len(r.points) {
			at = 0
		}
		if m := &r.members[r.owners[at]]; m.usable(tried, need) {
			return m.index
		}
	}
	return -1
}
