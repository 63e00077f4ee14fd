package upstream

import (
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// clocks bound the parts of an attempt, and the exchange as a whole.
type clocks struct {
	connect time.Duration
	// defaultConnect says that connect is the gateway's, not that of a document.
	defaultConnect bool
	handshake      time.Duration // of TLS; 0: within connect
	send           time.Duration
	head           time.Duration // from the last byte sent to the last of the head
	read           time.Duration // between two reads of the body
	first          time.Duration // from the first byte sent to the first content of the answer; 0: no clock of its own
	total          time.Duration // from the first attempt to the last byte of the answer; 0: for ever
}

// with returns the clocks that t sets in the place of c.
func (c clocks) with(t *resource.Timeout) clocks {
	if t == nil {
		return c
	}
	head := t.Head
	if head == 0 {
		head = t.Read
	}
	return clocks{connect: t.Connect, handshake: t.Handshake, send: t.Send, head: head, read: t.Read, first: t.FirstContent, total: t.Total}
}

// left returns d, or what is left of the exchange's time when that is less.
func (c *clocks) left(x *phase.Exchange, d time.Duration) time.Duration {
	if c.total == 0 {
		return d
	}
	return min(d, max(x.Attempts.Begun+c.total-x.Elapsed(), 1)) // a deadline must not be none
}

// content returns what is left of the time for the first content, or d when that is less or there is no such clock.
func (c *clocks) content(x *phase.Exchange, d time.Duration) time.Duration {
	if c.first == 0 {
		return d
	}
	return min(d, max(x.Attempts.Connected+c.first-x.Elapsed(), 1))
}

// over says that the exchange has had its time.
func (c *clocks) over(x *phase.Exchange) bool {
	return c.total > 0 && x.Elapsed()-x.Attempts.Begun >= c.total
}

// starved is late for what was waited for before there was any content.
func (c *clocks) starved(x *phase.Exchange, f *fault.Fault) *fault.Fault {
	if c.first > 0 && f == fault.ReadTimeout && x.Elapsed()-x.Attempts.Connected >= c.first {
		f = fault.FirstContentTimeout
	}
	return c.late(x, f)
}

// late returns f, or the fault of the exchange as a whole when it was its clock that ran out.
func (c *clocks) late(x *phase.Exchange, f *fault.Fault) *fault.Fault {
	switch f {
	case fault.ConnectTimeout, fault.TLSTimeout, fault.SendTimeout, fault.HeadTimeout, fault.ReadTimeout, fault.FirstContentTimeout:
		if c.over(x) {
			return fault.TotalTimeout
		}
	}
	return f
}
