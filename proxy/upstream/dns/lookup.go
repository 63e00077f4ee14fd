package dns

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Record is one server that a name stands for.
type Record struct {
	Addr netip.Addr
	// Port is that of an SRV record, 0 when the answer names none.
	Port uint16
	// Weight and Priority are those of a node, so that the higher priority is served first; 1 and 0 without an SRV record.
	Weight   uint64
	Priority int
}

// family is 0 for IPv4 and 1 for IPv6.
func (r *Record) family() int {
	if r.Addr.Is4() {
		return 0
	}
	return 1
}

// Finding is what a Source has learned of a name.
type Finding struct {
	Records []Record
	// TTL is for how long that is so.
	TTL time.Duration
	// Exact says that TTL is no one's but the source's, and is not to be bounded.
	Exact bool
	// Failed says, for IPv4 and IPv6, that nothing could be learned of addresses of that family.
	Failed [2]bool
}

// Source asks for the servers that name stands for. An error for which NotFound holds is a definite answer: there are none. known says
// that an answer is known already, so that a better one may be waited for.
type Source func(ctx context.Context, name string, known bool) (Finding, error)

// NotFound says that err is a definite answer: the name does not exist or has no addresses.
func NotFound(err error) bool {
	var no *noName
	return errors.As(err, &no)
}

// otherFamily is how long IPv4 addresses wait for the others, when nothing is known yet (RFC 8305 section 3).
const otherFamily = 250 * time.Millisecond

// addresses asks for the addresses of name, which is absolute, in both families at once.
func (c *Client) addresses(ctx context.Context, name string, known bool) (Finding, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type part struct {
		family int
		reply
		error
	}
	parts := make(chan part, 2)
	for family, t := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		go func() {
			r, err := c.ask(ctx, name, t)
			parts <- part{family, r, err}
		}()
	}
	f := Finding{Failed: [2]bool{true, true}}
	ttl, negative := uint32(noTTL), uint32(noTTL)
	var failure error
	var late <-chan time.Time
	for range 2 {
		var p part
		select {
		case p = <-parts:
		case <-late:
			p.error = context.DeadlineExceeded
		}
		var no *noName
		switch {
		case p.error == nil && len(p.addrs) > 0:
			ttl = min(ttl, p.ttl)
			for _, a := range p.addrs {
				f.Records = append(f.Records, Record{Addr: a, Weight: 1})
			}
			if f.Failed[p.family] = false; p.family == 0 && !known {
				timer := time.NewTimer(otherFamily)
				defer timer.Stop()
				late = timer.C
			}
		case p.error == nil || errors.As(p.error, &no):
			negative = min(negative, p.ttl)
			f.Failed[p.family] = false
		default:
			failure = p.error
		}
	}
	switch {
	case len(f.Records) > 0:
		f.TTL = seconds(ttl)
		return f, nil
	case failure != nil:
		return f, failure
	}
	return f, &noName{name, "no address", negative}
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// Services returns a Source that asks c for SRV records of a name, as it stands, and for addresses when there are none (contract section
// 3.6). Neither the hosts file nor search domains count.
func Services(c *Client) Source {
	return func(ctx context.Context, name string, _ bool) (Finding, error) {
		r, err := c.ask(ctx, name, dnsmessage.TypeSRV)
		if err == nil && len(r.targets) > 0 {
			return c.service(ctx, name, r)
		}
		f, addrErr := c.servers(ctx, name)
		if addrErr != nil && err != nil && !NotFound(err) {
			return f, err // whether it is a service is not known
		}
		return f, addrErr
	}
}

// servers asks for addresses each of which is to be a node: those of IPv6 count where there are none of IPv4 (the order of contract section
// 3.6), so that a server which has both is one node.
func (c *Client) servers(ctx context.Context, name string) (Finding, error) {
	f, err := c.addresses(ctx, name, false)
	if err != nil {
		return f, err
	}
	if f.Failed[0] {
		return f, errors.New(name + ": whether there are IPv4 addresses is not known")
	}
	if four := slices.DeleteFunc(slices.Clone(f.Records), func(r Record) bool { return r.family() != 0 }); len(four) > 0 {
		f.Records = four
	}
	f.Failed = [2]bool{}
	return f, nil
}

// maxTargets bounds the names that one SRV answer may refer to.
const maxTargets = 128

// service resolves the targets of SRV records. Lower priorities are tried first there, higher ones here. A weight of 0 counts as 1, and
// those who stand behind one target share its weight (contract section 3.6); as weights are whole numbers, all of them are multiplied.
func (c *Client) service(ctx context.Context, name string, r reply) (Finding, error) {
	if len(r.targets) > maxTargets {
		r.targets = r.targets[:maxTargets]
	}
	type found struct {
		i int
		Finding
		error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan found, len(r.targets))
	for i, t := range r.targets {
		if t.name == "." { // the service is decidedly not there
			results <- found{i, Finding{}, &noName{name, "no service", r.ttl}}
			continue
		}
		go func() {
			f, err := c.servers(ctx, t.name)
			results <- found{i, f, err}
		}()
	}
	ttl, multiple := seconds(r.ttl), uint64(1)
	behind := make([][]Record, len(r.targets))
	for range r.targets {
		f := <-results
		if f.error != nil && !NotFound(f.error) {
			return f.Finding, f.error
		}
		if f.error == nil {
			ttl = min(ttl, f.TTL)
		}
		if behind[f.i] = f.Records; len(f.Records) > 0 {
			multiple = leastMultiple(multiple, uint64(len(f.Records)))
		}
	}
	out := Finding{TTL: ttl}
	for i, t := range r.targets {
		for _, a := range behind[i] {
			weight := uint64(max(t.weight, 1)) * multiple / uint64(len(behind[i]))
			out.Records = append(out.Records, Record{Addr: a.Addr, Port: t.port, Weight: max(weight, 1), Priority: -int(t.priority)})
		}
	}
	if len(out.Records) == 0 {
		return out, &noName{name, "no address", r.ttl}
	}
	return out, nil
}

// maxMultiple bounds what weights are multiplied with; beyond it they are rounded.
const maxMultiple = 1 << 20

func leastMultiple(a, b uint64) uint64 {
	x, y := a, b
	for y > 0 {
		x, y = y, x%y
	}
	if m := a / x * b; m <= maxMultiple {
		return m
	}
	return a
}

// sorted puts records in an order of their own and drops what is there twice. Who has two weights at one address has their sum.
func sorted(list []Record) []Record {
	slices.SortFunc(list, func(a, b Record) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	out := list[:0]
	for _, r := range list {
		if n := len(out); n > 0 && out[n-1].Addr == r.Addr && out[n-1].Port == r.Port && out[n-1].Priority == r.Priority {
			if r.Port != 0 {
				out[n-1].Weight += r.Weight
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// untilKnown returns for how long err, for which NotFound holds, is so.
func untilKnown(err error) time.Duration {
	var no *noName
	if errors.As(err, &no) {
		return seconds(no.ttl)
	}
	return 0
}
