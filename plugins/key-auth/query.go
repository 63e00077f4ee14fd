package keyauth

import (
	"bytes"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// hideArgument takes every query argument called name out of the request: whatever builds a target or a log line later finds it gone.
func hideArgument(x *phase.Exchange, name string) {
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
