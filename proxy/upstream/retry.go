package upstream

import (
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// statusSet is a set of statuses from 200 to 599.
type statusSet [7]uint64

func (s *statusSet) add(status int) { s[(status-200)/64] |= 1 << ((status - 200) % 64) }

func (s *statusSet) has(status int) bool {
	i := uint(status - 200)
	return i < 400 && s[i/64]&(1<<(i%64)) != 0
}

// What a budget counts in: a request earns its percentage, a repetition costs a hundred.
const (
	retryCost = 100
	// retryBurst is how many repetitions there always are in the beginning and after a quiet time, so that a few requests may be
	// repeated whatever their number.
	retryBurst = 10
)

// budget bounds how many requests are repeated after an endpoint had got them, so that endpoints that are overloaded are not asked twice as
// often. Nodes that could not be reached cost nothing: nothing was asked of them.
type budget struct {
	percent int64
	left    *atomic.Int64 // shared with the versions of the upstream before and after
}

func newBudget(percent int, prev *Upstream) budget {
	if prev != nil {
		return budget{int64(percent), prev.budget.left}
	}
	b := budget{int64(percent), new(atomic.Int64)}
	b.left.Store(retryBurst * retryCost)
	return b
}

// earn counts a request. While all is well the account is full, and nothing is written.
func (b *budget) earn() {
	if b.left.Load() < retryBurst*retryCost {
		b.left.Add(b.percent)
	}
}

// spend takes the price of one repetition, when it is there.
func (b *budget) spend() bool {
	if b.percent == 0 {
		return false
	}
	for {
		left := b.left.Load()
		if left < retryCost {
			return false
		}
		if b.left.CompareAndSwap(left, left-retryCost) {
			return true
		}
	}
}

// longestCool bounds how long an endpoint is believed that it wants to be left alone.
const longestCool = time.Minute

// coming returns the node for the next attempt, marked as tried and with the attempt counted as under way: the picker's choice, unless it has as
// much as it may have or is at rest and another one has not and is not. first is an index that was picked already, -1 for none.
func (u *Upstream) coming(x *phase.Exchange, key uint64, first int) (*node, *fault.Fault) {
	tried := &x.Attempts.Tried
	i := first
	if i < 0 {
		i = u.pick.Pick(tried, key)
	}
	if i < 0 {
		return nil, fault.AllTried
	}
	look := u.resting.Load() && !x.Attempts.AllRest
	if u.limiter == nil && !look {
		tried.Add(i)
		n := u.nodes[i]
		n.Inflight.Add(1)
		return n, nil
	}
	before, now := *tried, time.Since(u.hub.epoch)
	away, busy := -1, false
	for marked := true; i >= 0 && marked; i = u.pick.Pick(tried, key) {
		tried.Add(i)
		marked = tried.Has(i) // else it would come again
		n := u.nodes[i]
		if look && u.away(n, now) {
			if away < 0 {
				away = i
			}
			continue
		}
		if n.enter() {
			*tried = before
			tried.Add(i)
			return n, nil
		}
		busy = true
	}
	*tried = before
	if !busy { // all that are left rest
		if away < 0 {
			return nil, fault.AllTried
		}
		x.Attempts.AllRest = true
		if n := u.nodes[away]; n.enter() {
			tried.Add(away)
			return n, nil
		}
	}
	return u.queue(x, key)
}

// other says whether an answer with a status that the operator has listed is to be dropped in favour of another node's: next is the index of that
// node, -1 when the answer stands.
func (u *Upstream) other(x *phase.Exchange, n *node, key uint64, try int, start time.Duration) (next int) {
	if u.again == nil || !u.again.has(x.Response.Status) {
		return -1
	}
	if wait, said := x.Response.Header.Get("Retry-After"); said {
		u.leaveAlone(&n.asked, retryAfter(wait, x.Start.Add(x.Elapsed())))
	}
	switch {
	case try >= u.retries, upgrades(&x.Request), x.Request.Spent, u.over(x),
		u.retryTimeout > 0 && x.Elapsed()-start >= u.retryTimeout:
		return -1
	}
	if next = u.pick.Pick(&x.Attempts.Tried, key); next < 0 || !u.budget.spend() {
		return -1
	}
	return next
}

// retryAfter reads the value of a Retry-After line (RFC 9110 section 10.2.3), a number of seconds or a date; 0 when it is neither.
func retryAfter(value []byte, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(string(value), 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestCool)
	}
	at, err := time.Parse(time.RFC1123, string(value))
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), longestCool)
}

// drop takes an answer back: another attempt makes another one. lines is the number of header lines that were there before it.
func drop(r *phase.Response, lines int) {
	if r.Stream != nil {
		r.Stream.Close()
	}
	r.Stream, r.Body, r.Status, r.Size, r.HeadLength, r.Source = nil, nil, 0, 0, -1, phase.FromPlugin
	r.Header.Truncate(lines)
	r.Trailers.Drop()
}

// retryRules compiles what doc says of repetitions.
func (u *Upstream) retryRules(doc *resource.Upstream, def Defaults, prev *Upstream) {
	percent := def.RetryBudget
	if r := doc.Retry; r != nil {
		if len(r.Statuses) > 0 {
			u.again = &statusSet{}
			for _, s := range r.Statuses {
				u.again.add(s)
			}
		}
		if r.Budget != nil {
			percent = *r.Budget
		}
		u.anyMethod = r.NonIdempotent
	}
	u.budget = newBudget(percent, prev)
	u.retries = max(len(u.nodes)-1, 0)
	if doc.Retries != nil {
		u.retries = min(*doc.Retries, math.MaxInt32)
	}
}
