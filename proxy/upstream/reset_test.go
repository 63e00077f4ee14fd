package upstream

import (
	"testing"
	"time"

	"headgate/proxy/fault"
)

// TestWorkedThenReset: an upstream that had the whole request for a while and then resets the connection may have executed it. A POST is
// not sent again, though the connection had served before; a reset that comes with the request (TestClosedOnReuse) is another matter.
func TestWorkedThenReset(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		u := start(func(p *peer) {
			p.next()
			p.send(ok2)
			if _, whole := p.next(); whole {
				time.Sleep(hearing*time.Millisecond + time.Second)
				p.reset()
			}
		})
		post(u).want(t, 200, "ok")
		post(u).wantFault(t, fault.ClosedBeforeHead)
		if n := len(r.srv.seen()); n != 2 {
			t.Fatalf("%d requests executed, want 2", n)
		}
	})
}
