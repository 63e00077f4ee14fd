// Package forwardauth is the forward-auth plugin: it asks another service whether a request may pass (its schema is that of the contract's
// gateway, priority as in contract section 4.1).
//
// It is safe where the service is: what the service says of a client reaches the upstream only from the service, never from the client, not
// even when the service is away and requests pass nevertheless; and a request that cannot be put to it as it is, is refused.
package forwardauth

import (
	"bytes"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"io"
	"net/http"

	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
	"headgate/proxy/vars"
)

//go:embed schema.json
var schemaJSON []byte

// Kind declares the plugin.
func Kind() phase.Kind {
	return phase.Kind{
		Name:     "forward-auth",
		Priority: 2002,
		Schema:   bytes.Clone(schemaJSON),
		Validate: validate,
		Build:    build,
	}
}

func build(conf []byte, env phase.Env) (any, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	// This client, unlike the one of fasthttp, throws away a connection on which an answer arrives that nobody has asked for: here it
	// would decide about the next request.
	return &plugin{config: c, directory: env.Directory(), transport: &http.Transport{
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: !c.verify, MinVersion: tls.VersionTLS12}, // the operator's word
		DisableKeepAlives:      c.keep == 0,
		MaxIdleConns:           c.keep,
		MaxIdleConnsPerHost:    c.keep,
		IdleConnTimeout:        c.idle,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHead,
	}}, nil
}

const (
	// maxHead and maxBody bound the service's answer in bytes. The body of a longer refusal is replaced by the page of its status.
	maxHead = 64 << 10
	maxBody = 1 << 20
)

// plugin is immutable.
type plugin struct {
	config    *config
	directory phase.Directory
	transport *http.Transport
}

// Close implements phase.Closer.
func (p *plugin) Close() { p.transport.CloseIdleConnections() }

// Rewrite implements phase.Rewriter. It waits for the service, at most for the timeout or until the client leaves, and keeps nothing of the exchange after it has
// returned.
func (p *plugin) Rewrite(x *phase.Exchange) phase.Verdict {
	if p.config.method == http.MethodPost && !x.HoldBody() {
		return phase.Stop
	}
	ctx, cancel := context.WithTimeout(x.Presence.Context(), p.config.timeout)
	defer cancel()
	q, ok := p.question(ctx, x)
	if !ok { // nobody but the client can have made it so: this is no failure of the service
		return p.refuse(x)
	}
	answer, err := p.transport.RoundTrip(q)
	switch {
	case err == nil:
	case x.Presence.Left():
		return x.Abandon(phase.InPlugin)
	case !p.config.pass:
		return p.refuse(x)
	default:
		p.forgetIdentity(x)
		return phase.Continue
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1)) // to its end, so that the connection can be kept
	switch s := answer.StatusCode; {
	case s < 200: // another protocol: no answer to what was asked
		return p.refuse(x)
	case s >= 300:
		return p.deny(x, answer, body, err == nil && len(body) <= maxBody)
	}
	if !p.attach(x, answer.Header) {
		return phase.Stop
	}
	p.forgetIdentity(x)
	for _, name := range p.config.upstream {
		for _, v := range answer.Header[name] {
			if !add(x, &x.Request.Header, name, v) {
				return p.refuse(x)
			}
		}
	}
	return phase.Continue
}

func (p *plugin) refuse(x *phase.Exchange) phase.Verdict {
	x.AnswerPage(p.config.errorStatus)
	return phase.Stop
}

// deny hands the service's answer to the client.
func (p *plugin) deny(x *phase.Exchange, answer *http.Response, body []byte, whole bool) phase.Verdict {
	if whole {
		x.Answer(answer.StatusCode, phase.TypeText, body)
	} else {
		x.AnswerPage(answer.StatusCode)
	}
	h := &x.Response.Header
	for _, name := range p.config.client {
		values := answer.Header[name]
		if len(values) > 0 {
			h.Del(name)
		}
		for _, v := range values {
			add(x, h, name, v)
		}
	}
	return phase.Stop
}

// attach makes the consumer that the service names that of the exchange. False says that it has answered instead.
func (p *plugin) attach(x *phase.Exchange, from http.Header) bool {
	if p.config.consumer == "" {
		return true
	}
	name := from.Get(p.config.consumer)
	if name == "" {
		x.Answer(403, phase.TypeText, []byte("consumer header missing in auth response"))
		return false
	}
	c := p.directory.Consumer(x, name)
	if c == nil {
		x.Answer(403, phase.TypeText, []byte("consumer not found"))
		return false
	}
	x.AttachPrincipal(c)
	return true
}

// forgetIdentity takes away what the client has sent under the names that are the service's, also in the spelling that some upstreams take
// for the same.
func (p *plugin) forgetIdentity(x *phase.Exchange) {
	h := &x.Request.Header
	for _, name := range p.config.upstream {
		for i := 0; i < h.Len(); {
			if f := h.Fields()[i]; twins(f.Name, name) {
				h.DelBytes(f.Name)
				i = 0
			} else {
				i++
			}
		}
	}
}

// twins says whether two names of header lines differ at most in case and in hyphens that are underscores.
func twins(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case c == '_':
		return '-'
	}
	return c
}

// add appends a line; false says that its value cannot be in one.
func add(x *phase.Exchange, h *phase.Header, name, value string) bool {
	v := x.Keep([]byte(value))
	if !wire.ValidValue(v) {
		return false
	}
	h.Add([]byte(name), v)
	return true
}

var errNoLine = errors.New("a value cannot be in a header line")

// question is what the service is asked. False says that it cannot be said in header lines.
func (p *plugin) question(ctx context.Context, x *phase.Exchange) (*http.Request, bool) {
	c, q := p.config, &x.Request
	header := make(http.Header, 6+len(c.extra)+len(c.request))
	header["User-Agent"] = []string{""} // none, instead of that of the client library
	set := func(name string, v []byte) error {
		if !wire.ValidValue(v) {
			return errNoLine
		}
		header[name] = []string{string(v)}
		return nil
	}
	scheme := "http"
	if q.TLS {
		scheme = "https"
	}
	var scratch [1 << 10]byte
	uri, _ := x.Var(vars.RequestURI, scratch[:0])
	if !wire.ValidValue(uri) {
		uri = wire.AppendPath(scratch[:0], q.Path)
		if len(q.Query) > 0 {
			uri = append(append(uri, '?'), q.Query...)
		}
	}
	err := errors.Join(
		set("X-Forwarded-Proto", []byte(scheme)),
		set("X-Forwarded-Method", q.Method),
		set("X-Forwarded-Host", q.Host),
		set("X-Forwarded-Uri", uri),
		set("X-Forwarded-For", x.Client.Text),
	)
	if v, ok := q.Header.Get("Content-Encoding"); ok && c.method == http.MethodPost {
		err = errors.Join(err, set("Content-Encoding", v))
	}
	for i := range c.extra {
		v, _ := c.extra[i].value.Append(scratch[:0], x)
		err = errors.Join(err, set(c.extra[i].name, v))
	}
	for _, name := range c.request {
		if _, taken := header[name]; taken && name != "User-Agent" {
			continue
		}
		var values []string
		for _, f := range q.Header.Fields() {
			if phase.EqualName(f.Name, name) {
				values = append(values, string(f.Value))
			}
		}
		if values != nil {
			header[name] = values
		}
	}
	r := &http.Request{Method: c.method, URL: c.uri, Host: c.uri.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if c.method == http.MethodPost {
		r.Body, r.ContentLength = http.NoBody, int64(len(q.Body))
		if len(q.Body) > 0 {
			// A copy: the transport may still be reading it when it has returned an early answer.
			r.Body = io.NopCloser(bytes.NewReader(bytes.Clone(q.Body)))
		}
	}
	return r.WithContext(ctx), err == nil
}

var (
	_ phase.Rewriter = (*plugin)(nil)
	_ phase.Closer   = (*plugin)(nil)
)
