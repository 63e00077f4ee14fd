// Package proxymirror is the proxy-mirror plugin: it sends copies of requests to another server and throws the answers away (contract
// section 4.4). A request never waits for its copy and never fails with it: what there is no room, no worker or no server for is dropped
// and counted.
package proxymirror

import (
	"bytes"
	"crypto/tls"
	_ "embed"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

//go:embed schema.json
var schemaJSON []byte

// Options is what the plugin needs of the process.
type Options struct {
	// Background runs task soon, on one of a bounded number of goroutines; false says that all are busy and task will not run.
	Background func(task func()) bool
	// Dropped is told of each copy that did not reach its server. May be nil.
	Dropped func()
	// TLS is how servers are verified, nil as the system does.
	TLS *tls.Config
}

const (
	// maxWaiting bounds the copies of one configuration that wait for their server at a time, so that a dead one leaves workers to others.
	maxWaiting = 64
	// maxBytes bounds the memory in bytes of all copies that wait.
	maxBytes = 64 << 20
	// headSize is what a head counts for among them.
	headSize = 2 << 10
	// maxKept bounds the memory in bytes that a resting copy holds on to.
	maxKept = 64 << 10
)

// Kind declares the plugin. The plugins that it builds share the bound on memory.
func Kind(o Options) phase.Kind {
	if o.Dropped == nil {
		o.Dropped = func() {}
	}
	m := &mirror{Options: o}
	return phase.Kind{
		Name:     "proxy-mirror",
		Priority: 1010,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    m.build,
	}
}

// mirror is what the plugins share.
type mirror struct {
	Options
	bytes  atomic.Int64
	copies sync.Pool // *requestCopy
}

// requestCopy is a request as it goes over the wire.
type requestCopy struct {
	plugin *plugin
	wire   []byte
	size   int64  // what it counts for among the bytes that wait
	send   func() // run, made once
}

func (m *mirror) build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	return &plugin{mirror: m, config: c, client: newClient(&c, m.TLS), slot: env.Slot()}, nil
}

// plugin is immutable, but for its counters and connections.
type plugin struct {
	mirror  *mirror
	config  config
	client  *client
	waiting atomic.Int64
	slot    int
}

// Send implements phase.Sender: the request is what it has become for the upstream, but for its target, which is the client's. Of several
// attempts the first one is copied. It allocates nothing once there are copies to reuse.
func (p *plugin) Send(x *phase.Exchange) phase.Verdict {
	s := x.Slot(p.slot)
	if s.Int != 0 {
		return phase.Continue
	}
	s.Int = 1
	if p.config.ratio < 1 && rand.Float64() >= p.config.ratio {
		return phase.Continue
	}
	if x.Request.Incoming != nil && !x.TryHold(x.Settings().MaxHeldBody) { // too long to be held, or it fails to come, which is for others to see
		p.mirror.Dropped()
		return phase.Continue
	}
	c := p.mirror.acquire(p, int64(len(x.Request.Body))+headSize)
	if c == nil {
		p.mirror.Dropped()
		return phase.Continue
	}
	var ok bool
	if c.wire, ok = p.append(c.wire[:0], x); !ok || !p.mirror.Background(c.send) {
		p.mirror.release(c)
		p.mirror.Dropped()
	}
	return phase.Continue
}

// acquire returns nil when there is no room for one more.
func (m *mirror) acquire(p *plugin, size int64) *requestCopy {
	if p.waiting.Add(1) > maxWaiting {
		p.waiting.Add(-1)
		return nil
	}
	if m.bytes.Add(size) > maxBytes {
		m.bytes.Add(-size)
		p.waiting.Add(-1)
		return nil
	}
	c, _ := m.copies.Get().(*requestCopy)
	if c == nil {
		c = &requestCopy{}
		c.send = c.run
	}
	c.plugin, c.size = p, size
	return c
}

// release ends a copy, sent or not.
func (m *mirror) release(c *requestCopy) {
	m.bytes.Add(-c.size)
	c.plugin.waiting.Add(-1)
	c.plugin = nil
	if cap(c.wire) > maxKept {
		c.wire = nil
	}
	m.copies.Put(c)
}

// run sends the copy and waits for the end of the answer.
func (c *requestCopy) run() {
	m := c.plugin.mirror
	method, _, _ := bytes.Cut(c.wire, []byte{' '})
	if !c.plugin.client.send(method, c.wire) {
		m.Dropped()
	}
	m.release(c)
}

// Close implements phase.Closer: copies on their way are given up.
func (p *plugin) Close() { p.client.close() }

// append appends the copy of x. False says that something in it, made by a plugin, cannot be sent.
func (p *plugin) append(dst []byte, x *phase.Exchange) ([]byte, bool) {
	q := &x.Request
	method, host := q.Method, q.Authority
	if len(q.OutMethod) > 0 {
		method = q.OutMethod
	}
	if len(q.OutHost) > 0 {
		host = q.OutHost
	}
	dst = append(append(dst, method...), ' ')
	start := len(dst)
	dst = p.config.appendTarget(dst, q)
	if !visible(dst[start:]) || !visible(method) || !visible(host) {
		return dst, false
	}
	dst = append(append(append(dst, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	for _, f := range q.Header.Fields() {
		if frames(f.Name) {
			continue
		}
		if !wire.ValidName(f.Name) || !wire.ValidValue(f.Value) {
			return dst, false
		}
		dst = append(append(append(append(dst, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	if len(q.Body) > 0 {
		dst = strconv.AppendInt(append(dst, "Content-Length: "...), int64(len(q.Body)), 10)
		dst = append(dst, "\r\n"...)
	} else if m := string(method); m == "POST" || m == "PUT" || m == "PATCH" {
		dst = append(dst, "Content-Length: 0\r\n"...)
	}
	return append(append(dst, "\r\n"...), q.Body...), true
}

func (c *config) appendTarget(dst []byte, q *phase.Request) []byte {
	dst = append(dst, c.path...)
	if c.path == "" || c.prefix {
		dst = wire.AppendPath(dst, q.Path)
	}
	if len(q.Query) > 0 {
		dst = append(append(dst, '?'), q.Query...)
	}
	return dst
}

// visible says that b has something, and neither space nor control byte.
func visible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return len(b) > 0
}

// frames: the lines that say where a message ends and what becomes of its connection are those of the copy itself.
func frames(name []byte) bool {
	for _, n := range [...]string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer"} {
		if phase.EqualName(name, n) {
			return true
		}
	}
	return false
}

var (
	_ phase.Sender = (*plugin)(nil)
	_ phase.Closer = (*plugin)(nil)
)
