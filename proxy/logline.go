package proxy

import (
	"headgate/proxy/accesslog"
	"headgate/proxy/phase"
	"headgate/proxy/vars"
)

// logSource is an exchange as its log line sees it: values are escaped, so that no client can write lines of its own, and "-" stands
// where there is none.
type logSource struct{ x *phase.Exchange }

var absent = []byte{'-'}

func (s logSource) safe(v []byte, ok bool) ([]byte, bool) {
	if !ok || len(v) == 0 {
		return absent, true
	}
	for _, c := range v {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return s.x.Commit(accesslog.AppendEscaped(s.x.Arena(), v)), true
		}
	}
	if len(v) > accesslog.MaxField {
		return s.x.Commit(accesslog.AppendEscaped(s.x.Arena(), v)), true
	}
	return v, true
}

func (s logSource) Var(id vars.ID, dst []byte) ([]byte, bool) {
	if id == vars.Request && len(s.x.Request.Method) == 0 { // it could not be read
		return absent, true
	}
	return s.safe(s.x.Var(id, dst))
}

func (s logSource) Header(name string, dst []byte) ([]byte, bool) {
	return s.safe(s.x.Header(name, dst))
}

func (s logSource) Arg(name string, dst []byte) ([]byte, bool) { return s.safe(s.x.Arg(name, dst)) }

func (s logSource) Cookie(name string, dst []byte) ([]byte, bool) {
	return s.safe(s.x.Cookie(name, dst))
}

func (s logSource) Param(name string, dst []byte) ([]byte, bool) { return s.safe(s.x.Param(name, dst)) }

func (s logSource) PostArg(name string, dst []byte) ([]byte, bool) {
	return s.safe(s.x.PostArg(name, dst))
}

func (s logSource) ResponseHeader(name string, dst []byte) ([]byte, bool) {
	return s.safe(s.x.ResponseHeader(name, dst))
}

var _ vars.Source = logSource{}
