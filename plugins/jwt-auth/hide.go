package jwtauth

import (
	"bytes"

	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// hideCookie takes every cookie called name out of the request. The others end up in one line.
func hideCookie(x *phase.Exchange, name string) {
	if _, ok := x.Cookie(name, nil); !ok {
		return
	}
	buf := x.Arena()
	start := len(buf)
	for _, f := range x.Request.Header.Fields() {
		if !phase.EqualName(f.Name, "Cookie") {
			continue
		}
		for rest, more := f.Value, true; more; {
			var pair []byte
			pair, rest, more = bytes.Cut(rest, []byte{';'})
			pair = bytes.Trim(pair, " \t")
			if _, hit := vars.CookieValue(pair, name); hit || len(pair) == 0 {
				continue
			}
			if len(buf) > start {
				buf = append(buf, "; "...)
			}
			buf = append(buf, pair...)
		}
	}
	if len(buf) == start {
		x.Request.Header.Del("Cookie")
		return
	}
	x.Request.Header.Set(nameCookie, x.Commit(buf))
}
