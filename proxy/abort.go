package proxy

import (
	"io"
	"time"

	"headgate/proxy/fault"
	"headgate/proxy/meter"
	"headgate/proxy/netpoll"
	"headgate/proxy/phase"
)

// aborts count the clients that left before they had their answer.
type aborts struct {
	request *meter.Counter // in the middle of the request
	plugin  *meter.Counter // while a plugin made it wait
	queue   *meter.Counter // in the queue for an endpoint
	connect *meter.Counter // while its upstream was being connected to
	wait    *meter.Counter // before the head of the answer
	answer  *meter.Counter // in the middle of it
}

func newAborts(r *meter.Registry) aborts {
	count := func(during string) *meter.Counter {
		return r.Counter(meter.ClientAborts, meter.Label{Name: "phase", Value: during})
	}
	return aborts{count("request"), count("plugin"), count("queue"), count("connect"), count("wait"), count("answer")}
}

// left counts a client that has left before the answer was begun, if that is why the exchange has failed.
func (x *exchange) left() bool {
	whole, cut := true, false
	switch b := x.incoming.(type) {
	case *intake:
		whole, cut = !b.pending.Load(), b.cut
	case *h2Body:
		whole, cut = b.err == io.EOF, b.err == fault.ClientGone
	}
	switch {
	case x.Fault != fault.ClientGone && !cut:
		return false
	case x.Stage == phase.InPlugin:
		x.g.aborts.plugin.Inc()
	case x.Stage == phase.InQueue:
		x.g.aborts.queue.Inc()
	case x.Stage == phase.InConnect:
		x.g.aborts.connect.Inc()
	case whole:
		x.g.aborts.wait.Inc()
	default:
		x.g.aborts.request.Inc()
	}
	return true
}

// presenceKey is under which an HTTP/2 request has the presence of its stream.
const presenceKey = "headgate.presence"

// presence tells when the client has left; nil when nobody can say.
func (x *exchange) presence() *netpoll.Presence {
	if x.Request.HTTP2 {
		p, _ := x.ctx.UserValue(presenceKey).(*netpoll.Presence)
		return p
	}
	if c := x.conn(); c != nil {
		return &c.presence
	}
	return nil
}

// Bounds of what is read of an answer for a client that has left, where the route wants it read to its end.
const (
	finishBytes = 64 << 20
	finishTime  = 10 * time.Minute
)

// finish reads on for the plugins that want to know how the answer ends, for which somebody may have to pay.
func (x *exchange) finish() {
	if x.route == nil || !x.route.Finish {
		return
	}
	end := time.Now().Add(finishTime)
	for sum := 0; sum <= finishBytes && time.Now().Before(end); {
		piece, err := x.Response.Stream.Next()
		if err != nil && err != io.EOF {
			return
		}
		sum += len(piece)
		if x.chunked() {
			if _, broken := x.Chunk(piece, err == io.EOF); broken != nil {
				return
			}
		}
		if err == io.EOF {
			return
		}
	}
}
