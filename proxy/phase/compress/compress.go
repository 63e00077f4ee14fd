// Package compress makes the body of an answer smaller on its way to the client: what the plugins gzip and brotli have in common
// (contract section 4.4, RFC 9110 sections 8.4 and 12.5.3).
//
// An answer is compressed when its status, type and length are those that the operator asked for, when nobody has encoded it or
// forbidden to change it, and when the client takes the coding. The decision falls when the head is known; the body is compressed piece
// by piece, as it passes. What has arrived leaves before the gateway waits for more: a slow answer is not made slower. As long as the
// upstream is ahead, the compressor gathers what it likes, but for media types that are sequences of messages, which leave piece by piece.
package compress

import (
	"io"
	"sync"
	"sync/atomic"

	"headgate/proxy/phase"
)

// Encoder compresses what is written to it. Those of klauspost/compress/gzip and andybalholm/brotli are some.
type Encoder interface {
	io.WriteCloser
	Flush() error
	// Reset begins a new body, whatever became of the one before.
	Reset(to io.Writer)
}

// Coding is a content coding. There is one value of each, compared by pointer; its token is how plugins of this package recognise their
// own work in a header line.
type Coding struct {
	token  []byte
	alias  string // "" for none
	status func(int) bool
}

var (
	// Gzip is for the answers that the contract's gateway compresses: statuses 200, 403 and 404.
	Gzip = &Coding{token: []byte("gzip"), alias: "x-gzip", status: func(s int) bool { return s == 200 || s == 403 || s == 404 }}
	// Brotli is for any answer with a whole body.
	Brotli = &Coding{token: []byte("br"), status: func(s int) bool { return s >= 200 && s != 204 && s != 206 && s != 304 }}
)

// Encoders keeps the encoders of one kind of plugin for reuse and bounds the memory of those at work: an encoder is the largest thing that
// an exchange can hold on to. It is safe for concurrent use.
type Encoders struct {
	budget int64
	used   atomic.Int64
	mu     sync.Mutex
	pools  map[any]*sync.Pool
}

// NewEncoders lets encoders work that take budget bytes together. Answers beyond it leave as they are.
func NewEncoders(budget int64) *Encoders {
	return &Encoders{budget: budget, pools: map[any]*sync.Pool{}}
}

// Make says how encoders of certain settings are made.
type Make struct {
	// Settings tells encoders apart that cannot stand in for each other. It is comparable.
	Settings any
	// Size is about what one takes, in bytes.
	Size  int64
	Fresh func() Encoder
}

// pool returns the encoders with the same settings.
func (e *Encoders) pool(settings any) *sync.Pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.pools[settings]
	if p == nil {
		p = &sync.Pool{}
		e.pools[settings] = p
	}
	return p
}

// Plugin compresses the answers that its rules are for. It is immutable, but for its encoders.
type Plugin struct {
	rules    Rules
	coding   *Coding
	encoders *Encoders
	pool     *sync.Pool
	make     Make
	slot     int
}

// New makes the plugin.
func New(coding *Coding, rules Rules, env phase.Env, encoders *Encoders, m Make) *Plugin {
	return &Plugin{rules: rules, coding: coding, encoders: encoders, pool: encoders.pool(m.Settings), make: m, slot: env.Slot()}
}

// work is the compression of one body.
type work struct {
	encoder Encoder
	out     output
	begun   bool
	passing bool // another plugin has taken the body over
	flush   bool // after every piece
	behind  bool // the encoder may hold something back
}

// output collects what an encoder writes.
type output struct{ b []byte }

func (o *output) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

// maxKept bounds the memory in bytes that a resting output holds on to.
const maxKept = 64 << 10

var nameEncoding = []byte("Content-Encoding")

// Response implements phase.Responder.
func (p *Plugin) Response(x *phase.Exchange) {
	if !p.fits(x) {
		return
	}
	h := &x.Response.Header
	if p.rules.Vary {
		addVary(h)
	}
	weight := p.coding.weight(&x.Request.Header)
	if before := ours(h); weight == 0 || before != nil && (before == p.coding || weight < before.weight(&x.Request.Header)) {
		return
	}
	w := p.acquire()
	if w == nil {
		return
	}
	w.flush = isSequence(x)
	x.Slot(p.slot).Ptr = w
	h.Set(nameEncoding, p.coding.token)
	h.Del("Accept-Ranges")
	weakenETag(x)
	x.Response.HeadLength = -1
}

// acquire returns nil when the encoders at work leave no room for another one.
func (p *Plugin) acquire() *work {
	if p.encoders.used.Add(p.make.Size) > p.encoders.budget {
		p.encoders.used.Add(-p.make.Size)
		return nil
	}
	w, _ := p.pool.Get().(*work)
	if w == nil {
		w = &work{encoder: p.make.Fresh()}
	}
	return w
}

// Wants implements phase.Chooser.
func (p *Plugin) Wants(x *phase.Exchange) bool { return x.Slot(p.slot).Ptr != nil }

// Chunk implements phase.Chunker.
func (p *Plugin) Chunk(x *phase.Exchange, piece []byte, last bool) ([]byte, error) {
	w, _ := x.Slot(p.slot).Ptr.(*work)
	if w == nil || w.passing {
		return piece, nil
	}
	if !w.begun {
		w.begun = true
		if ours(&x.Response.Header) != p.coding {
			w.passing = true
			return piece, nil
		}
		w.encoder.Reset(&w.out)
	}
	w.out.b = w.out.b[:0]
	if len(piece) > 0 {
		if _, err := w.encoder.Write(piece); err != nil {
			return nil, err
		}
		w.behind = true
	}
	var err error
	switch {
	case last:
		err = w.encoder.Close()
	case w.behind && (w.flush || waits(x.Response.Stream)):
		err = w.encoder.Flush()
		w.behind = false
	}
	return w.out.b, err
}

// waits says that the next piece of the body is not there yet, or that nobody knows.
func waits(s phase.Stream) bool {
	w, ok := s.(phase.Waiter)
	return !ok || w.Waits()
}

// Done implements phase.Finisher.
func (p *Plugin) Done(x *phase.Exchange) {
	s := x.Slot(p.slot)
	w, _ := s.Ptr.(*work)
	if w == nil {
		return
	}
	s.Ptr = nil
	p.encoders.used.Add(-p.make.Size)
	w.begun, w.passing, w.flush, w.behind = false, false, false, false
	if w.out.b = w.out.b[:0]; cap(w.out.b) > maxKept {
		w.out.b = nil
	}
	p.pool.Put(w)
}

// ours returns the coding that a plugin of this package has given the answer in this exchange, nil when none has. It is told by the
// identity of the token, so that the same word from an upstream is not taken for it.
func ours(h *phase.Header) *Coding {
	v, ok := h.Get("Content-Encoding")
	if !ok || len(v) == 0 {
		return nil
	}
	for _, c := range [...]*Coding{Gzip, Brotli} {
		if &v[0] == &c.token[0] {
			return c
		}
	}
	return nil
}

// Applied says whether the coding of an answer with these lines is the work of a plugin of this package in this exchange.
func Applied(h *phase.Header) bool { return ours(h) != nil }

var (
	_ phase.Responder = (*Plugin)(nil)
	_ phase.Chooser   = (*Plugin)(nil)
	_ phase.Finisher  = (*Plugin)(nil)
)
