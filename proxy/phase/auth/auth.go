// Package auth is what the authentication plugins have in common (contract section 4.4): how a request that shows nothing valid is
// refused, and how what it has shown is hidden from those behind the gateway.
package auth

import (
	"bytes"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// Refusal is what happens to the requests that a plugin does not let in. It is immutable.
type Refusal struct {
	directory phase.Directory
	challenge []byte // the value of WWW-Authenticate
	anonymous string
}

// NewRefusal refuses with a challenge of scheme (RFC 9110 section 11.3), which names realm. anonymous, unless empty, is the consumer that
// requests are taken for instead.
func NewRefusal(directory phase.Directory, scheme, realm, anonymous string) Refusal {
	return Refusal{directory, []byte(scheme + ` realm="` + realm + `"`), anonymous}
}

var (
	nameChallenge = []byte("WWW-Authenticate")
	bodyAnonymous = []byte("{\"message\":\"Invalid user authorization\"}\n")
)

// Refuse takes x for the anonymous consumer's where there is one, after hide has taken the credentials out of it. Otherwise it answers
// 401 with body, which must stay valid until Done. It allocates nothing.
func (r *Refusal) Refuse(x *phase.Exchange, body []byte, hide func(x *phase.Exchange)) phase.Verdict {
	if r.anonymous != "" {
		if c := r.directory.Consumer(x, r.anonymous); c != nil {
			hide(x)
			x.AttachPrincipal(c)
			return phase.Continue
		}
		body = bodyAnonymous // the name of a consumer that there isn't is the operator's mistake, which no client can put right
	}
	x.Response.Header.Set(nameChallenge, r.challenge)
	x.Answer(401, phase.TypeText, body)
	return phase.Stop
}

// Ambiguous says whether x shows several credentials: lines called name with different values. One of them would be checked here, and
// another one might be what counts behind the gateway. It allocates nothing.
func Ambiguous(x *phase.Exchange, name string) bool {
	first, found := []byte(nil), false
	for _, f := range x.Request.Header.Fields() {
		if !phase.EqualName(f.Name, name) {
			continue
		}
		if found && !bytes.Equal(f.Value, first) {
			return true
		}
		first, found = f.Value, true
	}
	return false
}

// HideArgument takes every query argument called name out of the request: whatever builds a target or a log line later finds it gone. Names
// are decoded before they are compared. It allocates nothing.
func HideArgument(x *phase.Exchange, name string) {
	q := &x.Request
	if kept, found := without(x, q.Query, name); found {
		q.Query = kept
	}
	i := bytes.IndexByte(q.OutTarget, '?')
	if i < 0 {
		return
	}
	kept, found := without(x, q.OutTarget[i+1:], name)
	if !found {
		return
	}
	target := append(x.Arena(), q.OutTarget[:i]...)
	if kept != nil {
		target = append(append(target, '?'), kept...)
	}
	q.OutTarget = x.Commit(target)
}

// without returns query without the arguments called name, nil when nothing is left, and whether there was one.
func without(x *phase.Exchange, query []byte, name string) (kept []byte, found bool) {
	buf := x.Arena()
	start := len(buf)
	for rest, more := query, len(query) > 0; more; {
		var pair []byte
		pair, rest, more = bytes.Cut(rest, []byte{'&'})
		if grown, hit := vars.QueryArg(pair, name, buf); hit {
			found, buf = true, grown[:len(buf)]
			continue
		}
		if len(buf) > start {
			buf = append(buf, '&')
		}
		buf = append(buf, pair...)
	}
	if !found {
		return query, false
	}
	if len(buf) == start {
		return nil, true
	}
	return x.Commit(buf), true
}
