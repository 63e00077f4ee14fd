package proxy

import (
	"bytes"

	"headgate/proxy/phase"
)

// addCharset names UTF-8 as the charset of a text answer of the upstream that names none, as the contract's gateway does
// (apisix-observed on section 3). It is wrong about every text in another encoding, so it is off unless asked for.
func addCharset(x *phase.Exchange) {
	const name = "Content-Type"
	v, ok := x.Response.Header.Get(name)
	if !ok || !isText(v) {
		return
	}
	b := append(append(x.Arena(), v...), "; charset=utf-8"...)
	x.Response.Header.Set([]byte(name), x.Commit(b))
}

// isText says whether the value of Content-Type is a text type of the contract's gateway, without a charset.
func isText(v []byte) bool {
	media, parameters, _ := bytes.Cut(v, []byte{';'})
	media = bytes.TrimRight(media, " \t")
	for len(parameters) > 0 {
		var p []byte
		p, parameters, _ = bytes.Cut(parameters, []byte{';'})
		p, _, _ = bytes.Cut(bytes.TrimLeft(p, " \t"), []byte{'='})
		if phase.EqualName(p, "charset") {
			return false
		}
	}
	switch len(media) {
	case 8:
		return phase.EqualName(media, "text/xml")
	case 9:
		return phase.EqualName(media, "text/html")
	case 10:
		return phase.EqualName(media, "text/plain")
	case 16:
		return phase.EqualName(media, "text/vnd.wap.wml")
	case 19:
		return phase.EqualName(media, "application/rss+xml")
	case 22:
		return phase.EqualName(media, "application/javascript")
	}
	return false
}
