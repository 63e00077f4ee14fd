// Package rewrite changes a request on its way to the upstream: target, method, Host and header lines. It is what the proxy-rewrite
// plugin and the branches of traffic-split have in common (contract section 4.2, proxy-rewrite).
package rewrite

import (
	"bytes"

	"headgate/proxy/expr"
	"headgate/proxy/phase"
	"headgate/proxy/phase/wire"
)

// Rewriter is a compiled rewrite. It is immutable and safe for concurrent use.
type Rewriter struct {
	uri           *target        // nil without uri
	substitutions []substitution // empty without regex_uri, and with uri, which beats it
	unsafe        bool
	host, method  []byte
	lines         []line
}

// Apply changes x.Request: OutTarget, OutHost, Header, OutMethod, in this order. What the configuration is silent about stays as it is,
// also when another Rewriter has set it before. Stop means that a pattern failed; the answer, a 500, is set.
//
// Apply allocates nothing as long as the exchange's buffers have room, except where regex_uri matches with a pattern other than
// "^/literal(.*)": package regexp has no submatch call that takes the caller's memory, so that is one allocation of 16 bytes per group,
// the whole match included (48 bytes for two groups). A pattern that does not match costs none, one that needs backtracking many.
func (r *Rewriter) Apply(x *phase.Exchange) phase.Verdict {
	q := &x.Request
	switch {
	case r.uri != nil:
		r.uri.apply(x, r.unsafe)
	case len(r.substitutions) > 0:
		if failed := r.substitute(x); failed != nil {
			x.Answer(500, phase.TypeText, failed.failure)
			return phase.Stop
		}
	case r.unsafe:
		q.OutTarget = x.Commit(appendReal(x.Arena(), q))
	}
	if len(r.host) > 0 {
		q.OutHost = r.host
	}
	for i := range r.lines {
		r.lines[i].apply(x)
	}
	if len(r.method) > 0 {
		q.OutMethod = r.method
	}
	return phase.Continue
}

// substitution is one of regex_uri.
type substitution struct {
	*Substitution
	failure []byte // the body of the answer when the search takes too long
}

func newSubstitution(pattern, text string) (substitution, error) {
	s, err := NewSubstitution(pattern, text)
	msg := "failed to substitute the uri (" + pattern + ") with " + text + ": the match took too long"
	return substitution{s, phase.MessageBody("error_msg", msg)}, err
}

// substitute applies the first substitution that matches. None leaves the target alone. It returns the one that failed, if any.
func (r *Rewriter) substitute(x *phase.Exchange) (failed *substitution) {
	q := &x.Request
	subject := q.Path
	buf := x.Arena()
	mark := len(buf)
	if r.unsafe {
		buf = appendReal(buf, q)
		subject = x.Commit(buf)
		mark = len(buf)
	}
	var groups [expr.MaxGroups][]byte
	for i := range r.substitutions {
		replaced, n, err := r.substitutions[i].Append(buf, subject, &groups)
		if err != nil {
			return &r.substitutions[i]
		}
		if n == 0 {
			continue
		}
		buf = replaced
		x.SetCaptures(groups[:n])
		raw := buf[mark:]
		done := len(buf)
		if len(raw) == 0 || raw[0] != '/' {
			buf = append(buf, '/')
		}
		if r.unsafe {
			buf = appendLegal(buf, raw)
		} else {
			buf = appendSubstituted(buf, raw, bytes.IndexByte(subject, '?') < 0, q.Query)
		}
		buf = buf[:mark+copy(buf[mark:], buf[done:])]
		q.OutTarget = x.Commit(buf)
		return nil
	}
	if r.unsafe {
		q.OutTarget = subject
	}
	return nil
}

// appendSubstituted writes the target for the path raw, whose first "?" starts a query if own is set. Otherwise the client's path had an
// escaped "?" in it, and none of them separates anything.
func appendSubstituted(dst, raw []byte, own bool, query []byte) []byte {
	separator := byte('?')
	i := -1
	if own {
		i = bytes.IndexByte(raw, '?')
	}
	if i < 0 {
		dst = wire.AppendPath(dst, raw)
	} else {
		dst = wire.AppendPath(dst, raw[:i])
		dst = appendLegal(dst, raw[i:])
		separator = '&'
	}
	if len(query) > 0 {
		dst = append(append(dst, separator), query...)
	}
	return dst
}

// appendReal writes the target as the client sent it.
func appendReal(dst []byte, q *phase.Request) []byte {
	dst = append(dst, q.RawPath...)
	if len(q.Query) > 0 {
		dst = append(append(dst, '?'), q.Query...)
	}
	return dst
}
