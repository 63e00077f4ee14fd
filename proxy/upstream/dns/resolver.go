// Package dns knows the addresses behind the names of nodes: it asks name servers, keeps the answers for as long as they hold, renews those
// that are in use before anybody waits for them, and keeps the last good ones while nobody answers (reliability F31).
package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"headgate/proxy/meter"
)

// Options are what a Resolver works with.
type Options struct {
	// Source is asked. Required; never twice at a time for one name.
	Source Source
	// MinTTL and MaxTTL bound the TTL of an answer. MinTTL is at least a millisecond; MaxTTL 0 sets no bound.
	MinTTL, MaxTTL time.Duration
	// OnDemand makes Watch do nothing: a name is asked for when somebody needs it.
	OnDemand bool
	// Stale is how long an answer that cannot be renewed stays in use after its TTL.
	Stale time.Duration
	// Meter counts under the label resolver = Name; nil: nobody does.
	Meter *meter.Registry
	Name  string
	// Logf gets a line when a name begins to fail and when it is well again; nil drops it.
	Logf func(format string, args ...any)
	// Changed is called after the answer for a name has become another one. It must not block. May be nil.
	Changed func()
}

const (
	// askFor bounds one question, with all its servers and repetitions.
	askFor = 10 * time.Second
	// atOnce is how many questions are under way at most.
	atOnce = 64
	// failedAgain is the pause after a question that failed; it doubles up to failedLongest.
	failedAgain   = time.Second
	failedLongest = 5 * time.Second
	// longestNo is how long it is believed at most that there is no such name.
	longestNo = 10 * time.Second
)

// Resolver knows names. It has no goroutines but those that ask.
type Resolver struct {
	opt     Options
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{}
	results [len(resultNames)]*meter.Counter

	mu      sync.Mutex
	running sync.WaitGroup
	closed  bool
	names   map[string]*Name
}

// What became of a question, as metrics name it.
const (
	resultOK = iota
	resultNone
	resultTimeout
	resultFailed
)

var resultNames = [...]string{"ok", "not_found", "timeout", "failed"}

// New returns a resolver; Close stops it.
func New(o Options) *Resolver {
	r := &Resolver{opt: o, slots: make(chan struct{}, atOnce), names: map[string]*Name{}}
	r.opt.MinTTL = max(o.MinTTL, time.Millisecond)
	if o.Logf == nil {
		r.opt.Logf = func(string, ...any) {}
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if o.Meter == nil {
		return r
	}
	label := meter.Label{Name: "resolver", Value: o.Name}
	for i, result := range resultNames {
		r.results[i] = o.Meter.Counter(meter.DNSResolutions, label, meter.Label{Name: "result", Value: result})
	}
	o.Meter.Gauge(meter.DNSOldestAnswer, func() float64 { return r.oldest().Seconds() }, label)
	return r
}

// Close ends all questions. What is known stays.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	names := make([]*Name, 0, len(r.names))
	for _, n := range r.names {
		names = append(names, n)
	}
	r.mu.Unlock()
	r.cancel()
	for _, n := range names {
		n.mu.Lock()
		n.stop()
		n.mu.Unlock()
	}
	r.running.Wait()
}

// Name returns the entry of text, which the caller gives back with Release. Nothing is asked yet.
func (r *Resolver) Name(text string) *Name {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[text]
	if n == nil {
		n = &Name{r: r, text: text}
		r.names[text] = n
	}
	n.refs++
	return n
}

// Release undoes one Name; after the last one what is known is forgotten.
func (n *Name) Release() {
	n.r.mu.Lock()
	n.refs--
	last := n.refs == 0
	if last {
		delete(n.r.names, n.text)
	}
	n.r.mu.Unlock()
	if last {
		n.mu.Lock()
		n.watchers = 0
		n.stop()
		n.mu.Unlock()
	}
}

// Known is what a Resolver knows of a name that somebody holds.
type Known struct {
	Name   string
	Answer *Answer // nil as long as nothing is known
	// Fresh is until when an answer with records holds; the zero Time when there never was one.
	Fresh time.Time
}

// Known lists the names that are held, sorted.
func (r *Resolver) Known() []Known {
	r.mu.Lock()
	names := slices.Collect(maps.Values(r.names))
	r.mu.Unlock()
	list := make([]Known, len(names))
	for i, n := range names {
		n.mu.Lock()
		list[i] = Known{n.text, n.answer.Load(), n.fresh}
		n.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b Known) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// begin counts a goroutine of the resolver, unless it is closed.
func (r *Resolver) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.running.Add(1)
	}
	return !r.closed
}

// oldest is the age of the oldest answer that is in use, 0 without any.
func (r *Resolver) oldest() (age time.Duration) {
	r.mu.Lock()
	names := make([]*Name, 0, len(r.names))
	for _, n := range r.names {
		names = append(names, n)
	}
	r.mu.Unlock()
	now := time.Now()
	for _, n := range names {
		n.mu.Lock()
		if n.watchers > 0 && n.usable() {
			age = max(age, now.Sub(n.learned))
		}
		n.mu.Unlock()
	}
	return age
}

// Answer is what is known of a name. It is immutable, and the same one as long as the servers are the same.
type Answer struct {
	// Records are in an order of their own, each once; empty when Err says why.
	Records []Record
	Err     error
}

// Has says whether addr is one of the answer's.
func (a *Answer) Has(addr netip.Addr) bool {
	for i := range a.Records {
		if a.Records[i].Addr == addr {
			return true
		}
	}
	return false
}

// lookup asks the source, bounded in time and in number.
func (r *Resolver) lookup(name string, known bool) (f Finding, err error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-r.ctx.Done():
		return f, r.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(r.ctx, askFor)
	defer cancel()
	if f, err = r.opt.Source(ctx, name, known); err == nil && len(f.Records) == 0 {
		err = &noName{name: name, why: "no address"}
	}
	f.Records = sorted(f.Records)
	return f, err
}

func (r *Resolver) count(err error) {
	result := resultOK
	var slow interface{ Timeout() bool }
	switch {
	case err == nil:
	case NotFound(err):
		result = resultNone
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		result = resultTimeout
	default:
		result = resultFailed
	}
	if c := r.results[result]; c != nil {
		c.Inc()
	}
}

// holds returns for how long f holds.
func (r *Resolver) holds(f Finding) time.Duration {
	if f.Exact {
		return f.TTL
	}
	ttl := max(f.TTL, r.opt.MinTTL)
	if r.opt.MaxTTL > 0 {
		ttl = min(ttl, r.opt.MaxTTL)
	}
	return ttl
}

// merged completes f with the records of before of a family of which nothing was learned, as long as those were learned in time.
func merged(f Finding, before *Answer, keep [2]bool) []Record {
	list := f.Records
	if before == nil {
		return list
	}
	for _, old := range before.Records {
		if family := old.family(); f.Failed[family] && keep[family] {
			list = append(list, old)
		}
	}
	return sorted(list)
}

func sameRecords(a *Answer, list []Record) bool {
	return a != nil && a.Err == nil && slices.Equal(a.Records, list)
}

// describe is a few of the addresses of a, for the log.
func describe(list []Record) string {
	const most = 5
	text := ""
	for i, r := range list[:min(len(list), most)] {
		if i > 0 {
			text += " "
		}
		text += r.Addr.String()
	}
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}
