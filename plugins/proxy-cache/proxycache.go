// Package proxycache is the proxy-cache plugin: answers of upstreams are kept, in memory or on the disk, and given to whoever asks the same
// again (contract section 4.4; RFC 9111 where the contract is silent).
//
// What is kept is the answer as the upstream sent it, before other plugins have changed it, so that they change what comes from the cache in
// the same way. It is kept only when it is complete. What belongs to one client stays with it: see appendKey for consumers, and keepable
// for answers to requests with Authorization, for cookies and for what the upstream calls private.
//
// Requests for the same answer that come before it is there all go to the upstream: nobody waits for anybody else's answer.
package proxycache

import (
	"bytes"
	_ "embed"
	"strconv"
	"strings"
	"time"

	"headgate/proxy/phase"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin. c may be nil: then the zones are DefaultZones, and nothing is written to a disk.
func Kind(c *Cache) phase.Kind {
	if c == nil {
		c = New(Options{Zones: DefaultZones()})
	}
	return phase.Kind{
		Name:     "proxy-cache",
		Priority: 1085,
		Schema:   bytes.Clone(schemaJSON),
		Validate: c.validate,
		Build:    c.build,
	}
}

func (c *Cache) build(conf []byte, env phase.Env) (any, error) {
	read, err := c.read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{config: read, cache: c, slot: env.Slot()}
	if strings.HasPrefix(env.Owner(), "global_rules/") {
		return inGlobalRule{p}, nil
	}
	return inRoute{p}, nil
}

// inRoute is the plugin of a route or a consumer: it stands where its priority puts it among the others, behind those that refuse.
type inRoute struct{ *plugin }

// Access implements phase.Accessor.
func (p inRoute) Access(x *phase.Exchange) phase.Verdict { return p.lookUp(x) }

// inGlobalRule is the plugin of a global rule. Those run before the route's, which may be there to refuse the request: nothing comes out of
// the cache until they all have let it pass.
type inGlobalRule struct{ *plugin }

// Send implements phase.Sender.
func (p inGlobalRule) Send(x *phase.Exchange) phase.Verdict {
	if s := x.Slot(p.slot); s.Ptr != nil || s.Int > int64(none) { // another attempt
		return phase.Continue
	}
	return p.lookUp(x)
}

// plugin is immutable, but for its zone. The slot of an exchange has its status and, for one that may take something from the cache or
// leave something there, its visit.
type plugin struct {
	config
	cache *Cache
	slot  int
}

// status is what came of a request.
type status int64

const (
	none status = iota
	miss
	hit
	expired
	stale
	bypass
	statuses
)

func (s status) text() []byte {
	switch s {
	case miss:
		return textMiss
	case hit:
		return textHit
	case expired:
		return textExpired
	case stale:
		return textStale
	case bypass:
		return textBypass
	}
	return nil
}

var (
	textMiss    = []byte("MISS")
	textHit     = []byte("HIT")
	textExpired = []byte("EXPIRED")
	textStale   = []byte("STALE")
	textBypass  = []byte("BYPASS")

	nameStatus = []byte("Apisix-Cache-Status")
	nameAge    = []byte("Age")
)

// visit is one exchange at the cache. It is also the buffer for its keys.
type visit struct {
	key     digest
	variant variant
	ticket  uint64
	// keep: the answer may be kept; forget: it makes what is kept under key invalid.
	keep, forget bool
	// guarded: the request came with Authorization, and the key does not say whose.
	guarded bool

	tuple, scratch []byte
	recorder       recorder
	file           fileReader
}

func (p *plugin) acquire(x *phase.Exchange) *visit {
	v, _ := p.cache.visits.Get().(*visit)
	if v == nil {
		v = &visit{tuple: make([]byte, 0, 1<<10), scratch: make([]byte, 0, 1<<10)}
	}
	v.keep, v.forget, v.guarded = false, false, false
	v.tuple = p.appendKey(v.tuple[:0], x, v.scratch)
	v.key = digestOf(v.tuple)
	x.Slot(p.slot).Ptr = v
	return v
}

// authorization is what the slot has between Rewrite and lookUp when the request came with Authorization.
const authorization = -1

// Rewrite implements phase.Rewriter: it notes whether the client, or a plugin that has asked who it is, has set Authorization. What plugins
// of a lower priority set from here on, such as proxy-rewrite, is the operator's and the same for everybody.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if _, ok := x.Request.Header.Get("Authorization"); ok {
		x.Slot(p.slot).Int = authorization
	}
	return phase.Continue
}

// lookUp answers what there is an answer to. It allocates nothing when that comes from memory.
func (p *plugin) lookUp(x *phase.Exchange) phase.Verdict {
	q, s := &x.Request, x.Slot(p.slot)
	authorized := s.Int == authorization
	s.Int = 0
	switch {
	case string(q.Method) == "PURGE":
		return p.purge(x)
	case !p.methods.has(q.Method):
		if !safe(q.Method) {
			p.acquire(x).forget = true
		}
		if p.zone.disk != nil {
			return p.goOn(x, bypass)
		}
		return p.goOn(x, miss)
	case !x.HoldBody(): // it tells answers apart
		return phase.Stop
	}
	v := p.acquire(x)
	v.variant.describe(x, v.scratch)
	v.guarded = authorized && x.Consumer.Name == ""
	v.keep = len(q.OutMethod) == 0 || bytes.Equal(q.OutMethod, q.Method)
	wishes := directives{maxAge: -1, minFresh: -1}
	if p.control {
		wishes = readDirectives(q.Header.Fields())
	}
	switch {
	case holds(p.bypass, x, v.scratch):
		v.keep = v.keep && p.zone.disk != nil // a zone on disk takes the new answer in
		_, v.ticket = p.zone.find(&v.key, &v.variant, q)
		return p.goOn(x, bypass)
	case wishes.noStore || wishes.noCache || preconditions(&q.Header) || len(q.Upgrade) > 0:
		v.keep = false
		return p.goOn(x, bypass)
	}
	e, ticket := p.zone.find(&v.key, &v.variant, q)
	v.ticket = ticket
	became := p.judge(e, v, &wishes, x.Start)
	if became == hit && !p.answer(x, v, e) {
		became = miss // its file is gone
	}
	if became == hit {
		return p.stop(x, hit)
	}
	if wishes.onlyIfCached {
		x.AnswerPage(504)
		return p.stop(x, became)
	}
	return p.goOn(x, became)
}

// judge says whether e, which may be nil, is the answer.
func (p *plugin) judge(e *entry, v *visit, wishes *directives, now time.Time) status {
	if e == nil || v.guarded && !e.shared {
		return miss
	}
	age := e.age(now)
	switch {
	case age >= e.lifetime:
		return expired
	case wishes.maxAge >= 0 && age > time.Duration(wishes.maxAge)*time.Second,
		wishes.minFresh >= 0 && e.lifetime-age < time.Duration(wishes.minFresh)*time.Second:
		return stale
	}
	return hit
}

func (p *plugin) goOn(x *phase.Exchange, s status) phase.Verdict {
	x.Slot(p.slot).Int = int64(s)
	p.zone.requests[s].Inc()
	return phase.Continue
}

func (p *plugin) stop(x *phase.Exchange, s status) phase.Verdict {
	p.goOn(x, s)
	return phase.Stop
}

// purge answers 200 when something was kept, else 404.
func (p *plugin) purge(x *phase.Exchange) phase.Verdict {
	if p.zone.purge(&p.acquire(x).key) {
		x.AnswerPage(200)
	} else {
		x.AnswerPage(404)
	}
	return phase.Stop
}

// answer makes e the answer. False says that its file cannot be read.
func (p *plugin) answer(x *phase.Exchange, v *visit, e *entry) bool {
	q, r := &x.Request, &x.Response
	head := string(q.Method) == "HEAD"
	unchanged := e.status == 200 && string(q.Method) != "POST" && notModified(&q.Header, e)
	body, streamed := e.body, false
	if p.zone.disk != nil && e.size > 0 && !head && !unchanged {
		if !v.file.begin(p.zone, e) {
			return false
		}
		if streamed = e.size > readSize; !streamed {
			var ok bool
			if body, ok = v.file.whole(); !ok {
				return false
			}
		}
	}
	switch {
	case unchanged:
		x.Answer(304, "", nil)
	case head:
		x.Answer(e.status, "", nil)
		if r.HeadLength = e.size; e.variant.class == classHead {
			r.HeadLength = e.headLength
		}
	default:
		x.Answer(e.status, "", body)
		if streamed {
			r.Body, r.Stream, r.Size = nil, &v.file, e.size
		}
		p.zone.served.Add(e.size)
	}
	for i := range e.fields {
		if f := &e.fields[i]; !unchanged || !describesBody(f.Name) {
			r.Header.Add(f.Name, f.Value)
		}
	}
	r.Header.Set(nameAge, x.Commit(strconv.AppendInt(x.Arena(), int64(e.age(x.Start)/time.Second), 10)))
	return true
}

// describesBody: a 304 has none (RFC 9110 section 15.4.5).
func describesBody(name []byte) bool {
	for _, n := range [...]string{"content-type", "content-encoding", "content-language", "content-range", "accept-ranges"} {
		if phase.EqualName(name, n) {
			return true
		}
	}
	return false
}

// Response implements phase.Responder.
func (p *plugin) Response(x *phase.Exchange) {
	text := status(x.Slot(p.slot).Int).text()
	if text == nil { // not asked, or PURGE
		return
	}
	h := &x.Response.Header
	if p.hide {
		h.Del("Expires")
		h.Del("Cache-Control")
	}
	h.Set(nameStatus, text)
}

// Done implements phase.Finisher.
func (p *plugin) Done(x *phase.Exchange) {
	s := x.Slot(p.slot)
	v, _ := s.Ptr.(*visit)
	if v == nil {
		return
	}
	s.Ptr = nil
	v.recorder.abandon()
	v.file.Close()
	v.file.zone, v.file.e = nil, nil
	p.cache.visits.Put(v)
}

var (
	_ phase.Accessor  = inRoute{}
	_ phase.Sender    = inGlobalRule{}
	_ phase.Rewriter  = (*plugin)(nil)
	_ phase.Receiver  = (*plugin)(nil)
	_ phase.Responder = (*plugin)(nil)
	_ phase.Finisher  = (*plugin)(nil)
)
