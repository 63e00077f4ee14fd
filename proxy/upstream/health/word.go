package health

import "headgate/balancer"

// Status is the verdict on a target. Those from MostlyUnhealthy on leave it out.
type Status uint8

const (
	Healthy Status = iota
	MostlyHealthy
	MostlyUnhealthy
	Unhealthy
)

// String returns the name that the control API uses (contract section 1.9).
func (s Status) String() string {
	return [...]string{"healthy", "mostly_healthy", "mostly_unhealthy", "unhealthy"}[s]
}

// Outcome is what one probe or one request said about a target.
type Outcome uint8

const (
	// Ignored: the status is in neither list.
	Ignored Outcome = iota
	Success
	HTTPFailure
	TCPFailure
	Timeout
	outcomes
)

// String is the value of the label result.
func (o Outcome) String() string {
	return [...]string{"ignored", "success", "http_failure", "tcp_failure", "timeout_failure"}[o]
}

// word is the whole state of a target in one balancer.Health: the four counters in bytes, the status in the two highest bits, so that
// the bit balancer.Down comes with the statuses that leave a target out.
type word uint64

const (
	statusShift = 62
	counterMask = 0xff
	failures    = word(counterMask)<<(8*(HTTPFailure-1)) | word(counterMask)<<(8*(TCPFailure-1)) | word(counterMask)<<(8*(Timeout-1))
	successes   = word(counterMask)
	down        = word(balancer.Down)
)

func (w word) status() Status { return Status(w >> statusShift) }

// count returns the counter of o, which is not Ignored.
func (w word) count(o Outcome) int { return int(w >> (8 * (o - 1)) & counterMask) }

// report returns the state after one more o (contract section 3.4): it zeroes the counters of the opposite, and the limit-th flips the
// verdict. A limit of 0 switches the counter off. What says the same as a full verdict is not counted.
func (w word) report(o Outcome, limit int) word {
	good, s := o == Success, w.status()
	if o == Ignored || limit <= 0 || good && s == Healthy || !good && s == Unhealthy {
		return w
	}
	n := min(w.count(o)+1, counterMask)
	if good {
		w &^= failures
	} else {
		w &^= successes
	}
	shift := 8 * (o - 1)
	w = w&^(counterMask<<shift) | word(n)<<shift
	switch {
	case n >= limit && good:
		s = Healthy
	case n >= limit:
		s = Unhealthy
	case s == Healthy:
		s = MostlyHealthy
	case s == Unhealthy:
		s = MostlyUnhealthy
	}
	return w<<2>>2 | word(s)<<statusShift
}
