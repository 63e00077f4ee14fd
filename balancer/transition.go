package balancer

import (
	"fmt"
	"time"
)

// Transition is a change of the state of a Gate.
type Transition struct {
	Target
	From, To State
	Why      Reason
	At       int64         // nanoseconds since 1970
	For      time.Duration // how long it is open; 0 unless To is Open
}

// Reason is why a state has changed.
type Reason struct {
	Kind   ReasonKind
	Count  uint64 // of what Kind names
	Of     uint64 // requests in the window, for the ratios
	Status int    // the last one that counted, 0 without any
	Slow   bool   // the probe was only slow
}

// ReasonKind says which trigger it was.
type ReasonKind uint8

// The triggers.
const (
	TimePassed ReasonKind = iota
	Failures
	ErrorRatio
	SlowRatio
	ProbeFailed
	ProbesPassed
)

func (r Reason) String() string {
	switch r.Kind {
	case Failures:
		return fmt.Sprintf("%d failures, the last one status %d", r.Count, r.Status)
	case ErrorRatio:
		return fmt.Sprintf("%d of %d requests failed, the last one with status %d", r.Count, r.Of, r.Status)
	case SlowRatio:
		return fmt.Sprintf("%d of %d requests were slow", r.Count, r.Of)
	case ProbeFailed:
		if r.Slow {
			return "a probe was slow"
		}
		return fmt.Sprintf("a probe failed with status %d", r.Status)
	case ProbesPassed:
		return fmt.Sprintf("%d probes succeeded", r.Count)
	}
	return "its time has passed"
}

// String is the line for the log: "branch v2 of routes/1 is open for 2s (was closed): 3 failures, the last one status 500".
func (t *Transition) String() string {
	open := ""
	if t.For > 0 {
		open = " for " + t.For.Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%v is %v%s (was %v): %v", t.Target, t.To, open, t.From, t.Why)
}
