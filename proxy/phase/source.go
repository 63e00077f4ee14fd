package phase

import (
	"net/netip"
	"os"
	"strconv"
	"time"

	"headgate/proxy/vars"
)

// Var implements vars.Source.
func (x *Exchange) Var(id vars.ID, dst []byte) ([]byte, bool) {
	q := &x.Request
	switch id {
	case vars.URI:
		return q.Path, true
	case vars.RequestURI:
		dst = append(dst, q.Path...)
		return appendQuery(dst, q.Query), true
	case vars.RealRequestURI:
		dst = append(dst, q.RawPath...)
		return appendQuery(dst, q.Query), true
	case vars.Args:
		return q.Query, len(q.Query) > 0
	case vars.IsArgs:
		if len(q.Query) > 0 {
			dst = append(dst, '?')
		}
		return dst, true
	case vars.Host, vars.ServerName:
		return q.Host, true
	case vars.HTTPHost:
		return q.Authority, len(q.Authority) > 0
	case vars.Hostname:
		return append(dst, x.settings.Hostname...), true
	case vars.Scheme:
		if q.TLS {
			return append(dst, "https"...), true
		}
		return append(dst, "http"...), true
	case vars.RequestMethod:
		return q.Method, true
	case vars.Request:
		return x.appendRequestLine(dst), true
	case vars.ServerProtocol:
		return append(dst, q.protocol()...), true
	case vars.RequestLength, vars.BytesReceived:
		return strconv.AppendInt(dst, q.Length, 10), true
	case vars.ContentType:
		return q.ContentType, len(q.ContentType) > 0
	case vars.ContentLength:
		size := q.BodySize()
		return strconv.AppendInt(dst, size, 10), size > 0
	case vars.HTTPS:
		if q.TLS {
			dst = append(dst, "on"...)
		}
		return dst, true
	case vars.RequestBody:
		return q.Body, x.readable() && len(q.Body) > 0
	case vars.GraphQLName, vars.GraphQLOperation, vars.GraphQLRootFields:
		return inText(x.graphQL(id, dst))
	}
	if v, ok := x.varOfClient(id, dst); ok {
		return v, true
	}
	if v, ok := x.varOfRoute(id, dst); ok {
		return v, true
	}
	return x.varOfAnswer(id, dst)
}

func (x *Exchange) varOfClient(id vars.ID, dst []byte) ([]byte, bool) {
	switch id {
	case vars.RemoteAddr:
		return x.Client.Text, true
	case vars.BinaryRemoteAddr:
		return appendAddr(dst, x.Client.Addr)
	case vars.RemotePort:
		return strconv.AppendUint(dst, uint64(x.Client.Port), 10), true
	case vars.ServerAddr:
		return x.Client.ServerAddr, true
	case vars.ServerPort:
		return strconv.AppendUint(dst, uint64(x.Client.ServerPort), 10), true
	case vars.ConnectionRequests:
		return strconv.AppendUint(dst, x.ConnRequests, 10), true
	case vars.TimeLocal:
		return append(dst, x.clock.at(x.Start)...), true
	case vars.TimeISO8601:
		return x.Start.AppendFormat(dst, "2006-01-02T15:04:05-07:00"), true
	case vars.Msec:
		return appendSeconds(dst, time.Duration(x.Start.UnixNano())), true
	case vars.PID:
		return strconv.AppendInt(dst, int64(os.Getpid()), 10), true
	case vars.NginxVersion:
		return append(dst, x.settings.APIVersion...), true
	case vars.GatewayVersion:
		return append(dst, x.settings.Version...), true
	case vars.RequestID:
		return x.id.append(dst), true
	case vars.RemoteUser:
		return x.appendRemoteUser(dst)
	}
	return dst, false
}

func (x *Exchange) varOfRoute(id vars.ID, dst []byte) ([]byte, bool) {
	var s string
	switch id {
	case vars.ConsumerName:
		s = x.Consumer.Name
	case vars.ConsumerGroupID:
		s = x.Consumer.Group
	case vars.Branch:
		s = x.Branch
	case vars.Split:
		return x.AppendDecision(dst)
	case vars.UpstreamName:
		if x.Upstream != nil {
			s = x.Upstream.Name()
		}
	case vars.RouteID, vars.RouteName, vars.ServiceID, vars.ServiceName:
		if x.Route == nil {
			return dst, false
		}
		switch id {
		case vars.RouteID:
			s = x.Route.ID
		case vars.RouteName:
			s = x.Route.Name
		case vars.ServiceID:
			s = x.Route.ServiceID
		default:
			s = x.Route.ServiceName
		}
	}
	return append(dst, s...), s != ""
}

func (x *Exchange) varOfAnswer(id vars.ID, dst []byte) ([]byte, bool) {
	a := &x.Attempts
	switch id {
	case vars.Status:
		return strconv.AppendInt(dst, int64(x.Response.Status), 10), x.Response.Status != 0
	case vars.BytesSent, vars.BodyBytesSent:
		return strconv.AppendInt(dst, x.Response.Sent, 10), true
	case vars.RequestTime:
		return appendSeconds(dst, x.Elapsed()), true
	case vars.UpstreamAddr:
		return a.appendAddrs(dst), a.Count > 0
	case vars.BalancerIP:
		return append(dst, a.Node...), a.Node != ""
	case vars.BalancerPort:
		return strconv.AppendUint(dst, uint64(a.NodePort), 10), a.Node != ""
	case vars.UpstreamStatus:
		return a.AppendStatuses(dst), a.Count > 0
	case vars.UpstreamConnectTime:
		return appendSeconds(dst, a.Connected-a.Begun), a.Connected > 0
	case vars.UpstreamHeaderTime:
		return appendSeconds(dst, a.Head-a.Begun), a.Head > 0
	case vars.UpstreamResponseTime:
		return appendSeconds(dst, a.Took()), a.Count > 0
	case vars.Fault:
		if x.Fault != nil {
			return append(dst, x.Fault.Code...), true
		}
	case vars.UpstreamURI:
		return x.Request.OutTarget, len(x.Request.OutTarget) > 0
	case vars.RespBody:
		return x.Response.Body, len(x.Response.Body) > 0
	case vars.UpstreamHost:
		return x.Request.OutHost, len(x.Request.OutHost) > 0
	}
	return dst, false
}

// Took is the time spent on upstreams: from the first attempt to the last byte, or to where the last attempt got.
func (a *Attempts) Took() time.Duration { return max(a.Connected, a.Head, a.End, a.Begun) - a.Begun }

// appendAddrs appends the endpoint of each attempt, "10.0.0.1:80, 10.0.0.2:80".
func (a *Attempts) appendAddrs(dst []byte) []byte {
	for i := range a.Statuses() {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, a.addrs[i]...)
	}
	return dst
}

// AppendStatuses appends the outcome of each attempt, "502, 200", and the mark of one that was not made, "502 : ".
func (a *Attempts) AppendStatuses(dst []byte) []byte {
	for i, s := range a.Statuses() {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if s == 0 {
			dst = append(dst, '-')
			continue
		}
		dst = strconv.AppendUint(dst, uint64(s), 10)
	}
	if a.Unmade {
		dst = append(dst, " : "...)
	}
	return dst
}

// Header implements vars.Source.
func (x *Exchange) Header(name string, dst []byte) ([]byte, bool) {
	if name == "host" { // no line of Request.Header
		return x.Request.Authority, len(x.Request.Authority) > 0
	}
	return joined(&x.Request.Header, name, dst)
}

// ResponseHeader implements vars.Source.
func (x *Exchange) ResponseHeader(name string, dst []byte) ([]byte, bool) {
	return joined(&x.Response.Header, name, dst)
}

func joined(h *Header, name string, dst []byte) (value []byte, found bool) {
	lines := 0
	for _, f := range h.fields {
		if !vars.HeaderNameEqual(f.Name, name) {
			continue
		}
		switch lines++; lines {
		case 1:
			value = f.Value
		case 2:
			value = append(append(append(dst, value...), ", "...), f.Value...)
		default:
			value = append(append(value, ", "...), f.Value...)
		}
	}
	return value, lines > 0
}

// Arg implements vars.Source.
func (x *Exchange) Arg(name string, dst []byte) ([]byte, bool) {
	return vars.QueryArg(x.Request.Query, name, dst)
}

// Cookie implements vars.Source.
func (x *Exchange) Cookie(name string, _ []byte) (value []byte, ok bool) {
	for _, f := range x.Request.Header.fields {
		if EqualName(f.Name, "cookie") { // HTTP/2 clients send several; the last one counts, as inside one line
			if v, has := vars.CookieValue(f.Value, name); has {
				value, ok = v, true
			}
		}
	}
	return value, ok
}

// Param implements vars.Source.
func (x *Exchange) Param(name string, _ []byte) ([]byte, bool) { return x.Match.Param(name) }

func (q *Request) protocol() string {
	switch {
	case q.HTTP10:
		return "HTTP/1.0"
	case q.HTTP2:
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

func (x *Exchange) appendRequestLine(dst []byte) []byte {
	q := &x.Request
	dst = append(append(dst, q.Method...), ' ')
	dst = appendQuery(append(dst, q.RawPath...), q.Query)
	return append(append(dst, ' '), q.protocol()...)
}

func appendQuery(dst, query []byte) []byte {
	if len(query) == 0 {
		return dst
	}
	return append(append(dst, '?'), query...)
}

// appendAddr appends an address as 4 or 16 bytes.
func appendAddr(dst []byte, addr netip.Addr) ([]byte, bool) {
	switch {
	case !addr.IsValid():
		return dst, false
	case addr.Is4():
		octets := addr.As4()
		return append(dst, octets[:]...), true
	default:
		octets := addr.As16()
		return append(dst, octets[:]...), true
	}
}

// appendSeconds appends d in seconds with three places, as nginx prints times.
func appendSeconds(dst []byte, d time.Duration) []byte {
	ms := int64(max(d, 0) / time.Millisecond)
	dst = strconv.AppendInt(dst, ms/1000, 10)
	return append(dst, '.', byte('0'+ms/100%10), byte('0'+ms/10%10), byte('0'+ms%10))
}

var (
	_ vars.Source   = (*Exchange)(nil)
	_ vars.Captures = (*Exchange)(nil)
)
