package proxy

import "headgate/proxy/phase"

var nameContentType = []byte("Content-Type")

// addCharset names UTF-8 as the charset of a text answer of the upstream that names none, as the contract's gateway does
// (apisix-observed on section 3). It is wrong about every text in another encoding, so it is off unless asked for.
func addCharset(x *phase.Exchange) {
	v, ok := x.Response.Header.GetBytes(nameContentType)
	if !ok || !isText(v) {
		return
	}
	b := append(append(x.Arena(), v...), "; charset=utf-8"...)
	x.Response.Header.Set(nameContentType, x.Commit(b))
}

// isText says whether the value of Content-Type is a text type of the contract's gateway and nothing else: it takes no parameter for a part
// of what it knows.
func isText(v []byte) bool {
	switch len(v) {
	case 8:
		return phase.EqualName(v, "text/xml")
	case 9:
		return phase.EqualName(v, "text/html")
	case 10:
		return phase.EqualName(v, "text/plain")
	case 16:
		return phase.EqualName(v, "text/vnd.wap.wml")
	case 19:
		return phase.EqualName(v, "application/rss+xml")
	case 22:
		return phase.EqualName(v, "application/javascript")
	}
	return false
}
