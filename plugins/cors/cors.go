// Package cors is the cors plugin: it tells browsers which other origins may read the answers of a route, and answers their preflight
// requests (contract section 4.4, Fetch standard section 3.2).
package cors

import (
	"bytes"
	"strconv"
	"strings"
	"unsafe"

	"headgate/proxy/expr"
	"headgate/proxy/phase"
)

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:           "cors",
		Priority:       4000,
		Schema:         bytes.Clone(schemaJSON),
		Validate:       validate,
		Build:          build,
		MetadataSchema: bytes.Clone(metadataJSON),
	}
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	p := &plugin{
		slot:        env.Slot(),
		vary:        c.AllowOrigins != "*",
		methods:     []byte(c.AllowMethods),
		headers:     []byte(c.AllowHeaders),
		expose:      []byte(c.ExposeHeaders),
		maxAge:      strconv.AppendInt(nil, c.MaxAge, 10),
		credentials: c.AllowCredential,
		anyHeaders:  c.AllowHeaders == "**",
	}
	if c.AllowMethods == "**" {
		p.methods = []byte("GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE")
	}
	lists, err := readMetadata(env.Metadata())
	if err != nil {
		return nil, err
	}
	for _, name := range c.AllowOriginsByMetadata {
		if text, ok := lists[name].(string); ok {
			p.shared = append(p.shared, newOrigins(text))
		}
	}
	if len(c.AllowOriginsByMetadata) == 0 || c.AllowOrigins != "*" {
		if p.own, err = newRule(c.AllowOrigins, c.AllowOriginsByRegex); err != nil {
			return nil, err
		}
	}
	if c.TimingAllowOrigins != "" || len(c.TimingAllowOriginsByRegex) > 0 {
		p.timing, err = newRule(c.TimingAllowOrigins, c.TimingAllowOriginsByRegex)
	}
	return p, err
}

// grant is what an origin is told.
type grant uint8

const (
	nothing   grant = iota
	everybody       // "*"
	itself          // its own name
)

// origins is a list of origins.
type origins struct {
	all, force bool // "*", "**"
	listed     map[string]struct{}
}

func newOrigins(text string) *origins {
	o := &origins{all: text == "*", force: text == "**", listed: make(map[string]struct{})}
	for _, origin := range strings.Split(text, ",") {
		o.listed[origin] = struct{}{}
	}
	return o
}

// allow decides about origin, which is empty when the request has none.
func (o *origins) allow(origin []byte) grant {
	switch {
	case o.all, o.force && len(origin) == 0:
		return everybody
	case o.force:
		return itself
	}
	if _, ok := o.listed[string(origin)]; ok {
		return itself
	}
	return nothing
}

// rule is a list of origins or, in its place, patterns. A nil rule grants nothing.
type rule struct {
	origins  *origins
	patterns expr.Patterns
}

func newRule(list string, patterns []string) (*rule, error) {
	if len(patterns) == 0 {
		return &rule{origins: newOrigins(list)}, nil
	}
	p, err := expr.CompilePatterns(patterns, false)
	return &rule{patterns: p}, err
}

func (r *rule) allow(origin []byte) grant {
	switch {
	case r == nil:
		return nothing
	case r.origins != nil:
		return r.origins.allow(origin)
	case len(origin) > 0:
		if ok, err := r.patterns.Match(origin); ok && err == nil {
			return itself
		}
	}
	return nothing
}

// plugin is immutable.
type plugin struct {
	// shared are the lists of the metadata, which come first; own is nil when only they count, timing when nobody asked for it.
	shared      []*origins
	own, timing *rule
	// slot carries the decision from the request to the response; see decide.
	slot int

	methods, headers, expose, maxAge []byte
	vary, credentials, anyHeaders    bool
}

// decide settles what the origin of the request is told. It is done before other plugins change the request; the slot then has the
// grants and the length of the origin in its number, and a pointer to the origin's first byte, which needs no memory of its own.
func (p *plugin) decide(x *phase.Exchange) {
	var origin []byte
	lines := 0
	for _, f := range x.Request.Header.Fields() {
		if phase.EqualName(f.Name, "origin") {
			origin = f.Value
			lines++
		}
	}
	if lines > 1 { // which of them the browser means cannot be known
		origin = nil
	}
	s := x.Slot(p.slot)
	s.Int = int64(len(origin))<<(2*grantBits) | int64(p.timing.allow(origin))<<grantBits | int64(p.allow(origin))
	s.Ptr = unsafe.SliceData(origin)
}

// grantBits is the size of a grant in the slot's number.
const grantBits = 2

func (p *plugin) allow(origin []byte) grant {
	if len(origin) > 0 {
		for _, o := range p.shared {
			if o.allow(origin) != nothing {
				return itself
			}
		}
	}
	return p.own.allow(origin)
}

// Rewrite implements phase.Rewriter: preflight requests are answered here, their header lines come with Response.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	p.decide(x)
	if string(x.Request.Method) != "OPTIONS" {
		return phase.Continue
	}
	x.Answer(200, phase.TypeText, nil)
	return phase.Stop
}

// Foretell implements phase.Answerer.
func (p *plugin) Foretell(x *phase.Exchange) *phase.Foretold {
	if string(x.Request.Method) != "OPTIONS" {
		return nil
	}
	return &phase.Foretold{Status: 200, Share: 1, Why: "it answers every preflight request"}
}

// Response implements phase.Responder. The lines replace those of the upstream.
func (p *plugin) Response(x *phase.Exchange) {
	s := x.Slot(p.slot)
	first, ok := s.Ptr.(*byte)
	if !ok { // another plugin answered before this one's turn
		p.decide(x)
		first, _ = s.Ptr.(*byte)
	}
	origin := unsafe.Slice(first, s.Int>>(2*grantBits))
	h := &x.Response.Header
	if p.vary {
		h.Add(nameVary, nameOrigin)
	}
	if g := grant(s.Int & (1<<grantBits - 1)); g != nothing {
		h.Set(nameAllowOrigin, g.text(origin))
		p.describe(x)
	}
	if g := grant(s.Int >> grantBits & (1<<grantBits - 1)); g != nothing {
		h.Set(nameTiming, g.text(origin))
	}
}

func (g grant) text(origin []byte) []byte {
	if g == everybody {
		return star
	}
	return origin
}

// describe adds what an allowed origin may do.
func (p *plugin) describe(x *phase.Exchange) {
	h := &x.Response.Header
	h.Set(nameAllowMethods, p.methods)
	h.Set(nameMaxAge, p.maxAge)
	if len(p.expose) > 0 {
		h.Set(nameExpose, p.expose)
	}
	headers := p.headers
	if p.anyHeaders {
		headers, _ = x.Request.Header.Get("Access-Control-Request-Headers")
	}
	if len(headers) > 0 {
		h.Set(nameAllowHeaders, headers)
	} else {
		h.Del("Access-Control-Allow-Headers")
	}
	if p.credentials {
		h.Set(nameCredentials, yes)
	}
}

var (
	star             = []byte("*")
	yes              = []byte("true")
	nameVary         = []byte("Vary")
	nameOrigin       = []byte("Origin")
	nameAllowOrigin  = []byte("Access-Control-Allow-Origin")
	nameAllowMethods = []byte("Access-Control-Allow-Methods")
	nameMaxAge       = []byte("Access-Control-Max-Age")
	nameExpose       = []byte("Access-Control-Expose-Headers")
	nameAllowHeaders = []byte("Access-Control-Allow-Headers")
	nameCredentials  = []byte("Access-Control-Allow-Credentials")
	nameTiming       = []byte("Timing-Allow-Origin")
)

var (
	_ phase.Rewriter  = (*plugin)(nil)
	_ phase.Answerer  = (*plugin)(nil)
	_ phase.Responder = (*plugin)(nil)
)
