package upstream

import (
	"sync/atomic"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// limiter bounds what the endpoints of an upstream have under way, and keeps a queue for when all of them have enough. Only who waits in it pays
// for it: with a timer.
type limiter struct {
	inflight int64 // at one endpoint
	queue    int64
	patience time.Duration

	waiting atomic.Int64
	// free has a token for each place that became free while somebody waited.
	free chan struct{}
	// next is of the version that came after: what ends here makes room there.
	next atomic.Pointer[limiter]
}

func newLimiter(l *resource.Limits, prev *Upstream) *limiter {
	if l == nil {
		return nil
	}
	made := &limiter{inflight: int64(l.Inflight), queue: int64(l.Queue), patience: l.QueueTimeout, free: make(chan struct{}, max(l.Queue, 1))}
	if prev != nil && prev.limiter != nil {
		prev.limiter.next.Store(made) // if it does not come into force, nobody will wait in it
	}
	return made
}

// enter counts one more attempt as under way at n, unless it has enough. leave undoes it.
func (n *node) enter() bool {
	if n.limiter == nil {
		n.Inflight.Add(1)
		return true
	}
	for {
		now := n.Inflight.Load()
		if now >= n.limiter.inflight {
			return false
		}
		if n.Inflight.CompareAndSwap(now, now+1) {
			return true
		}
	}
}

func (n *node) leave() {
	n.Inflight.Add(-1)
	// Who is about to wait counts itself first and then looks once more, so that one of the two sees the other.
	for l := n.limiter; l != nil; l = l.next.Load() {
		if l.waiting.Load() == 0 {
			continue
		}
		select {
		case l.free <- struct{}{}:
		default: // there are tokens for all who wait
		}
	}
}

// queue waits until one of the nodes that were not tried can take one more. The queue is bounded in number and time; past it the client is told
// to come again. A client that leaves gives its place back.
func (u *Upstream) queue(x *phase.Exchange, key uint64) (*node, *fault.Fault) {
	l := u.limiter
	if l.waiting.Add(1) > l.queue {
		l.waiting.Add(-1)
		return nil, u.busy(x)
	}
	defer l.waiting.Add(-1)
	timer := time.NewTimer(u.left(x, l.patience))
	defer timer.Stop()
	left := x.Presence.Context().Done()
	for {
		if n := u.freeNode(x, key); n != nil {
			return n, nil
		}
		select {
		case <-l.free:
		case <-left: // a token that came at the same time stays for the next one
			x.Stage = phase.InQueue
			return nil, fault.ClientGone
		case <-timer.C:
			if u.over(x) {
				return nil, fault.TotalTimeout
			}
			return nil, u.busy(x)
		}
	}
}

// freeNode enters the first node in the picker's order that lets it and does not rest, and marks it as tried; nil when there is none.
func (u *Upstream) freeNode(x *phase.Exchange, key uint64) *node {
	tried := &x.Attempts.Tried
	before, now := *tried, time.Since(u.hub.epoch)
	look := u.resting.Load() && !x.Attempts.AllRest
	i, marked := u.pick.Pick(tried, key), true
	for ; i >= 0 && marked; i = u.pick.Pick(tried, key) {
		tried.Add(i)
		marked = tried.Has(i) // else it would come again
		n := u.nodes[i]
		if look && u.away(n, now) {
			continue
		}
		if n.enter() {
			*tried = before
			tried.Add(i)
			return n
		}
	}
	*tried = before
	return nil
}

var retryAfterName, oneSecond = []byte("Retry-After"), []byte("1")

// busy says that no node can take more.
func (u *Upstream) busy(x *phase.Exchange) *fault.Fault {
	x.Response.Header.Set(retryAfterName, oneSecond)
	return fault.EndpointsBusy
}
