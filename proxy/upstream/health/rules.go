package health

import "headgate/conf/resource"

// rules are the two directions of active or of passive checks. The zero value counts nothing.
type rules struct {
	good, bad statuses
	limits    [outcomes]int
}

// newRules compiles the two directions; one that is nil counts nothing.
func newRules(healthy, unhealthy *resource.Report) (r rules) {
	if healthy != nil {
		r.good.add(healthy.Statuses)
		r.limits[Success] = healthy.Successes
	}
	if unhealthy != nil {
		r.bad.add(unhealthy.Statuses)
		r.limits[HTTPFailure], r.limits[TCPFailure], r.limits[Timeout] = unhealthy.HTTPFailures, unhealthy.TCPFailures, unhealthy.Timeouts
	}
	return r
}

// classify says what a status counts as; 0 stands for an answer that has none.
func (r *rules) classify(status int) Outcome {
	switch {
	case r.good.has(status):
		return Success
	case status == 0 || r.bad.has(status):
		return HTTPFailure
	}
	return Ignored
}

// statuses is a set of numbers below 640.
type statuses [10]uint64

func (s *statuses) add(list []int) {
	for _, n := range list {
		if uint(n) < 64*uint(len(s)) {
			s[n/64] |= 1 << (n % 64)
		}
	}
}

func (s *statuses) has(n int) bool {
	return uint(n) < 64*uint(len(s)) && s[uint(n)/64]&(1<<(uint(n)%64)) != 0
}
