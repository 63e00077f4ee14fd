package upstream

import (
	"fmt"
	"testing"
	"time"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
)

// TestPassiveBodies: a body that is cut counts as a connection that broke, one that stops coming as a timeout; and an answer is no success before
// it has come whole.
func TestPassiveBodies(t *testing.T) {
	stop := func(d *resource.Upstream) {
		d.Timeout = &resource.Timeout{Connect: time.Minute, Send: time.Minute, Read: 50 * time.Millisecond}
	}
	for name, c := range map[string]struct {
		edit func(d *resource.Upstream)
		tail string
		hang bool
		want string // after three answers that begin well
		left bool   // the client has, in the midst of them
	}{
		"cut":         {nil, "", false, "unhealthy 0 2 0", false},
		"stall":       {stop, "", true, "unhealthy 0 0 2", false},
		"whole":       {nil, "0\r\n\r\n", false, "healthy 0 0 0", false},
		"client left": {nil, "", false, "healthy 0 0 0", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newChecked(t)
			s := serve(t, func(p *peer) {
				for _, ok := p.next(); ok; _, ok = p.next() {
					p.send(chunkedHead, "2\r\nab\r\n", c.tail)
					if c.hang || c.left {
						p.gone()
						return
					}
					if c.tail != "0\r\n\r\n" {
						return
					}
				}
			})
			u := r.upstream(func(d *resource.Upstream) {
				d.Checks = watching()
				d.Checks.Passive.Unhealthy.TCPFailures, d.Checks.Passive.Unhealthy.Timeouts = 2, 2
				if c.edit != nil {
					c.edit(d)
				}
			}, s)
			for range 3 {
				if !c.left {
					get(u)
					continue
				}
				x := request("GET", "/", "")
				x.Presence = &netpoll.Presence{}
				if f := u.Forward(x); f != nil {
					t.Fatal(f)
				}
				if _, err := x.Response.Stream.Next(); err != nil {
					t.Fatal(err)
				}
				x.Presence.Leave()
				if _, err := x.Response.Stream.Next(); err != error(fault.ClientGone) {
					t.Fatal(err)
				}
				x.Response.Stream.Close()
			}
			u.Publish("routes/1")
			n := r.hub.Health()[0].Nodes[0]
			if got := fmt.Sprintf("%s %d %d %d", n.Status, n.Counter.HTTP, n.Counter.TCP, n.Counter.Timeout); got != c.want {
				t.Errorf("the server is %s, want %s", got, c.want)
			}
			u.Withdraw()
		})
	}
}
