package proxy

import (
	"bufio"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"headgate/balancer"
	"headgate/proxy/phase"
)

// TestCutAnswersBreak: an upstream that breaks off its answers is a broken one, although their heads were fine; and whoever has seen the break
// that decides meets it no more.
func TestCutAnswersBreak(t *testing.T) {
	const most = 3
	var asked atomic.Int64
	cutting := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := head(in); err == nil {
			asked.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
		}
	})
	well := rawServer(t, func(c net.Conn, in *bufio.Reader) {
		for _, err := head(in); err == nil; _, err = head(in) {
			_, _ = io.WriteString(c, ok200)
		}
	})
	rules := &balancer.Rules{Failures: most, Successes: 1, Probes: 1, Longest: 1 << 40}
	for s := 200; s < 600; s++ {
		rules.Healthy[s], rules.Unhealthy[s] = s < 500, s >= 500
	}
	r := newGate(t, defaults())
	r.access = func(x *phase.Exchange) phase.Verdict {
		x.Judge(balancer.OfEndpoint, rules)
		return phase.Continue
	}
	r.route("any", `{"uri":"/*","plugins":{"probe":{}},"upstream":{"nodes":{"`+cutting+`":1,"`+well+`":1}}}`)
	cut := 0
	for range 8 * most {
		c := r.dial(t).say(get)
		if _, _, err := c.reply("GET"); err != nil {
			cut++
		}
		_ = c.Close()
	}
	if cut != most || asked.Load() != most {
		t.Errorf("%d answers were cut, of %d; %d should have been enough", cut, asked.Load(), most)
	}
}
