package trafficsplit

import (
	"headgate/balancer"
	"headgate/proxy/phase"
)

// pick decides which branch of r serves x and notes the decision in x; -1 when all weights are 0. It is the only place that decides.
//
// A client that is known keeps its branch by rendezvous hashing; everybody else takes the next place of the weighted sequence. Either
// way the bucket says all: with the weights of the revision in force it leads to the same branch again (see branchOf).
func (r *rule) pick(x *phase.Exchange) int {
	bucket, known := r.known(x)
	if !known && r.sticky != nil && r.sticky.cookie != nil {
		bucket, known = r.sticky.cookie.draw(x), true
	}
	if !known {
		n, _ := r.sequence.NextN()
		bucket = r.place(n)
	}
	return r.decide(x, bucket)
}

// known returns the bucket of a client that is known.
func (r *rule) known(x *phase.Exchange) (phase.Bucket, bool) {
	if r.sticky == nil {
		return phase.Bucket{}, false
	}
	return r.sticky.bucket(x)
}

// place returns the bucket of pick n of the sequence.
func (r *rule) place(n uint64) phase.Bucket {
	return phase.Bucket{Kind: phase.PlaceBucket, N: r.sequence.Table().Place(n)}
}

// decide notes in x that bucket decides, and returns the branch, -1 when all weights are 0.
func (r *rule) decide(x *phase.Exchange, bucket phase.Bucket) int {
	at := r.branchOf(bucket, nil)
	if at >= 0 {
		x.Decision = phase.Decision{Rule: r.index, Bucket: bucket, Branch: r.branches[at].token}
	}
	return at
}

// branchOf returns the branch to which a bucket leads; those that passed has are left out where a key decides.
func (r *rule) branchOf(bucket phase.Bucket, passed *balancer.Tried) int {
	if bucket.Kind == phase.KeyBucket {
		return r.sticky.rendezvous.Pick(bucket.N, passed)
	}
	return r.sequence.Table().At(bucket.N)
}

// telling is a plugin that says in the answer what it has decided, or sets cookies. Others have no response phase.
type telling struct {
	*plugin
	header  bool
	cookies []*cookie
}

var nameDecision = []byte("X-Headgate-Split")

// Response implements phase.Responder. With decision_header the line is ours or not there: what an upstream says is no decision.
func (t *telling) Response(x *phase.Exchange) {
	for _, c := range t.cookies {
		c.set(x)
	}
	if !t.header {
		return
	}
	if v, ok := x.AppendDecision(x.Arena()); ok {
		x.Response.Header.Set(nameDecision, x.Commit(v))
	} else {
		x.Response.Header.Del("X-Headgate-Split")
	}
}

var (
	_ phase.Accessor  = (*telling)(nil)
	_ phase.Explainer = (*telling)(nil)
	_ phase.Responder = (*telling)(nil)
)
