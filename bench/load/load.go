// Package load is an HTTP/1.1 load generator. In a closed loop every connection
// sends its next request as soon as the answer to the last one is complete; in
// an open one requests are due at fixed times, whatever became of those before.
// It checks every answer and counts everything that is not as expected.
package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config describes one load. All fields are required but for the last two.
type Config struct {
	Addr     string        // host:port to dial
	Conns    int           // concurrent keep-alive connections, one request in flight on each
	Request  []byte        // the whole request as it goes on the wire; only read
	WantBody int           // length that the body of every answer must have, bytes; AnyBody takes every length
	Timeout  time.Duration // for dialling, and about as much for one answer

	// Next, when not nil, makes the request number n, counted from 0 over all
	// connections, in the place of Request. It appends to buf, is called by all
	// connections at once, and its result is used until its connection calls it again.
	Next func(buf []byte, n uint64) []byte
	// Rate opens the loop: so many requests a second are due over all
	// connections, and a latency is counted from when its request was due, if its
	// connection was still busy then. 0 is the closed loop.
	Rate float64
}

// AnyBody is the Config.WantBody that does not look at bodies.
const AnyBody = -1

// PostJSON builds the wire form of a chat request as an SDK would send it.
func PostJSON(host, path, token string, body []byte) []byte {
	b := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: headgate-bench\r\nContent-Length: %d\r\n\r\n",
		path, host, token, len(body))
	return append(b, body...)
}

// Counts are totals since the start of a load. Done counts the answers that
// were as expected, every other field counts requests (Dial: attempts to
// connect) that went wrong.
type Counts struct {
	Done    uint64 `json:"done"`
	Dial    uint64 `json:"dial_errors"`
	Reset   uint64 `json:"resets"`       // connection ended before the answer was complete
	Timeout uint64 `json:"timeouts"`     // no complete answer in time
	Status  uint64 `json:"wrong_status"` // any status but 200
	Body    uint64 `json:"wrong_body"`   // status 200, body of the wrong length
	Framing uint64 `json:"bad_framing"`  // not an HTTP/1.1 answer with a Content-Length
}

// Errors is the number of everything that went wrong.
func (c Counts) Errors() uint64 {
	return c.Dial + c.Reset + c.Timeout + c.Status + c.Body + c.Framing
}

// Add returns the sum of both.
func (c Counts) Add(o Counts) Counts {
	return Counts{
		Done: c.Done + o.Done, Dial: c.Dial + o.Dial, Reset: c.Reset + o.Reset, Timeout: c.Timeout + o.Timeout,
		Status: c.Status + o.Status, Body: c.Body + o.Body, Framing: c.Framing + o.Framing,
	}
}

// Generator is a running load.
type Generator struct {
	cfg       Config
	cancel    context.CancelFunc
	began     time.Time
	measuring atomic.Bool
	running   sync.WaitGroup
	workers   []*worker
}

// Start opens the connections and begins to send. The load runs until ctx ends
// or Stop is called; Stop must be called in both cases.
func Start(ctx context.Context, cfg Config) *Generator {
	ctx, cancel := context.WithCancel(ctx)
	g := &Generator{cfg: cfg, cancel: cancel, began: time.Now()}
	for i := range cfg.Conns {
		w := &worker{g: g, n: uint64(i), buf: make([]byte, 4<<10)}
		g.workers = append(g.workers, w)
		g.running.Go(func() { w.run(ctx) })
	}
	return g
}

// Done is the number of good answers so far. It may be read while the load runs.
func (g *Generator) Done() uint64 {
	var n uint64
	for _, w := range g.workers {
		n += w.done.Load()
	}
	return n
}

// Measure switches the recording of latencies on or off; it is off at first.
func (g *Generator) Measure(on bool) { g.measuring.Store(on) }

// Stop lets every request in flight finish (at most about Config.Timeout) and
// returns the totals and the latencies of the answers that completed while
// measuring.
func (g *Generator) Stop() (Counts, *Histogram) {
	g.cancel()
	g.running.Wait()
	var total Counts
	var latency Histogram
	for _, w := range g.workers {
		w.counts.Done = w.done.Load()
		total = total.Add(w.counts)
		latency.Merge(&w.latency)
	}
	return total, &latency
}

// worker is one connection's loop. Everything but done belongs to its
// goroutine until that has ended.
type worker struct {
	g       *Generator
	done    atomic.Uint64
	n       uint64 // of the request; those of this worker are Config.Conns apart
	request []byte // made by Config.Next
	conn    net.Conn
	expires time.Time // of the deadline set on conn
	buf     []byte
	counts  Counts
	latency Histogram
}

// retryPause keeps a peer that is down from being hammered.
const retryPause = 10 * time.Millisecond

func (w *worker) run(ctx context.Context) {
	defer w.hangUp()
	for ctx.Err() == nil {
		if w.conn == nil && !w.dial() {
			pause(ctx)
			continue
		}
		sent, ok := w.due(ctx)
		if !ok {
			return
		}
		w.extend()
		h, err := w.exchange(w.next())
		switch {
		case err != nil:
			w.fail(err)
			w.hangUp()
			pause(ctx)
			continue
		case h.status != 200:
			w.counts.Status++
		case h.body != w.g.cfg.WantBody && w.g.cfg.WantBody != AnyBody:
			w.counts.Body++
		default:
			w.done.Store(w.done.Load() + 1) // one writer
			if w.g.measuring.Load() {
				w.latency.Record(time.Since(sent))
			}
		}
		if h.close {
			w.hangUp()
		}
	}
}

// next returns the request to send.
func (w *worker) next() []byte {
	n := w.n
	w.n += uint64(w.g.cfg.Conns)
	if w.g.cfg.Next == nil {
		return w.g.cfg.Request
	}
	w.request = w.g.cfg.Next(w.request[:0], n)
	return w.request
}

// due waits until the next request may be sent and returns the moment from
// which its latency counts. A sleep that lasts too long is the generator's own
// fault and counts for nobody. It is not ok when ctx ended.
func (w *worker) due(ctx context.Context) (from time.Time, ok bool) {
	now := time.Now()
	if w.g.cfg.Rate == 0 {
		return now, true
	}
	at := w.g.began.Add(time.Duration(float64(w.n) / w.g.cfg.Rate * float64(time.Second)))
	if !now.Before(at) {
		return at, true
	}
	t := time.NewTimer(at.Sub(now))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return now, false
	case <-t.C:
		return time.Now(), true
	}
}

func (w *worker) dial() bool {
	c, err := dial(w.g.cfg)
	if err != nil {
		w.counts.Dial++
		return false
	}
	w.conn = c
	return true
}

func dial(c Config) (net.Conn, error) { return net.DialTimeout("tcp", c.Addr, c.Timeout) }

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.Close()
		w.conn, w.expires = nil, time.Time{}
	}
}

// extend moves the deadline only once a second: setting one costs more than
// the rest of the loop's own work.
func (w *worker) extend() {
	now := time.Now()
	if w.expires.Sub(now) < w.g.cfg.Timeout {
		w.expires = now.Add(w.g.cfg.Timeout + time.Second)
		_ = w.conn.SetDeadline(w.expires) // fails only on a closed connection, as the next write will
	}
}

// exchange sends the request and reads one whole answer. Bytes after the
// answer were not asked for: they are bad framing.
func (w *worker) exchange(request []byte) (head, error) {
	if _, err := w.conn.Write(request); err != nil {
		return head{}, err
	}
	var h head
	for have := 0; ; {
		n, err := w.conn.Read(w.buf[have:])
		have += n
		if h.size == 0 && n > 0 {
			var perr error
			if h, perr = parseHead(w.buf[:have]); perr != nil {
				return head{}, perr
			}
			if total := h.size + h.body; h.size > 0 && total > len(w.buf) {
				if h.body > maxBody {
					return head{}, errFraming
				}
				w.buf = append(w.buf, make([]byte, total-len(w.buf))...)
			}
		}
		if h.size > 0 && have >= h.size+h.body {
			if have > h.size+h.body {
				return head{}, errFraming
			}
			return h, nil
		}
		if err != nil {
			return head{}, err
		}
		if have == len(w.buf) {
			w.buf = append(w.buf, make([]byte, len(w.buf))...)
		}
	}
}

// maxBody bounds the body of one answer, in bytes.
const maxBody = 1 << 20

func (w *worker) fail(err error) {
	switch {
	case errors.Is(err, errFraming):
		w.counts.Framing++
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.counts.Timeout++
	default:
		w.counts.Reset++
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(retryPause):
	}
}
