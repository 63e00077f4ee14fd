package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// ExplainRequest is the description of a request: a JSON object of these members, of which only path is needed.
type ExplainRequest struct {
	// Method is GET when it is not given, POST with a body.
	Method string `json:"method,omitempty"`
	// Host is the Host header, "localhost" when neither it nor such a header is given.
	Host string `json:"host,omitempty"`
	// Path is the request target as it stands in the request line, with the query.
	Path string `json:"path"`
	// Headers are the other lines, one or several values for each name.
	Headers map[string][]string `json:"headers,omitempty"`
	Body    string              `json:"body,omitempty"`
	// Client is the address of the peer, with or without a port; 127.0.0.1 when it is not given.
	Client string `json:"client,omitempty"`
	// Consumer is the name of the consumer that authentication is to have found.
	Consumer string `json:"consumer,omitempty"`
	TLS      bool   `json:"tls,omitempty"`
	// Bucket is what is to decide in a split, as X-Headgate-Split and $split show it, in the place of what the request has or of what is
	// next in the sequence; "" for none. A number in JSON is a place in the sequence.
	Bucket string `json:"bucket,omitempty"`

	bucket phase.Bucket
	peer   netip.AddrPort
}

// maxExplainRequest bounds a description in bytes: a request that may hold a prompt.
const maxExplainRequest = 1 << 20

// readExplainRequest reads a description strictly: what nobody would look at is refused.
func readExplainRequest(raw []byte) (*ExplainRequest, error) {
	if len(raw) > maxExplainRequest {
		return nil, &resource.Error{Status: 413, Msg: fmt.Sprintf("the description has %d bytes, at most %d are read", len(raw), maxExplainRequest)}
	}
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, resource.Invalid(err.Error())
	}
	members, ok := doc.(map[string]any)
	if !ok {
		return nil, resource.Invalid(`expected an object like {"method":"GET","host":"example.com","path":"/a?b=1"}`)
	}
	in := &ExplainRequest{}
	texts := map[string]*string{
		"method": &in.Method, "host": &in.Host, "path": &in.Path, "body": &in.Body, "client": &in.Client, "consumer": &in.Consumer,
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value := members[name]
		switch at := texts[name]; {
		case at != nil:
			*at, ok = value.(string)
		case name == "bucket":
			in.Bucket, ok = bucketText(value)
		case name == "tls":
			in.TLS, ok = value.(bool)
		case name == "headers":
			in.Headers, ok = headerLines(value)
		default:
			return nil, resource.Invalid("unknown member " + quoted(name) +
				": a description has method, host, path, headers, body, client, consumer, tls and bucket")
		}
		if !ok {
			return nil, resource.Invalid(name + ": " + wanted(name))
		}
	}
	return in, in.check()
}

func wanted(member string) string {
	switch member {
	case "bucket":
		return "expected a text or a number"
	case "tls":
		return "expected true or false"
	case "headers":
		return `expected an object of texts, or of arrays of texts: {"Accept":"text/html","Via":["1.1 a","1.1 b"]}`
	}
	return "expected a text"
}

func bucketText(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return value, true
	case json.Number:
		return value.String(), true
	}
	return "", false
}

func headerLines(value any) (map[string][]string, bool) {
	members, ok := value.(map[string]any)
	if !ok {
		return nil, false
	}
	lines := make(map[string][]string, len(members))
	for name, value := range members {
		switch value := value.(type) {
		case string:
			lines[name] = []string{value}
		case []any:
			for _, item := range value {
				text, ok := item.(string)
				if !ok {
					return nil, false
				}
				lines[name] = append(lines[name], text)
			}
		default:
			return nil, false
		}
	}
	return lines, true
}

// check refuses what no request could say, and fills in what was not given.
func (in *ExplainRequest) check() error {
	if in.Path == "" {
		return resource.Invalid("path: expected the path of the request")
	}
	if in.Method == "" {
		in.Method = fasthttp.MethodGet
		if in.Body != "" {
			in.Method = fasthttp.MethodPost
		}
	}
	for name, text := range map[string]string{"method": in.Method, "host": in.Host, "path": in.Path} {
		if strings.ContainsAny(text, "\r\n\x00") {
			return resource.Invalid(name + ": a request has no line break or NUL there")
		}
	}
	if strings.ContainsAny(in.Method, " \t") {
		return resource.Invalid("method: a request has no space there")
	}
	for name, values := range in.Headers {
		if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
			return resource.Invalid("headers: a header line has no line break or NUL in it: " + quoted(name))
		}
		if strings.EqualFold(name, "host") && in.Host != "" {
			return resource.Invalid("host: is given as a member and as a header")
		}
	}
	if in.Bucket != "" {
		var err error
		if in.bucket, err = phase.ParseBucket(in.Bucket); err != nil {
			return resource.Invalid("bucket: " + err.Error())
		}
	}
	if in.Client == "" {
		in.Client = "127.0.0.1"
	}
	peer, err := netip.ParseAddrPort(in.Client)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(in.Client); err == nil {
			peer = netip.AddrPortFrom(a, 0)
		}
	}
	if err != nil || peer.Addr().Zone() != "" {
		return resource.Invalid("client: expected an IP address, with or without a port, got " + quoted(in.Client))
	}
	in.peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	return nil
}

// quoted is text for an error message.
func quoted(text string) string {
	const most = 100
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return strconv.Quote(text)
}

// wire is the request as it would arrive.
func (in *ExplainRequest) wire() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", in.Method, in.Path)
	host, framed := in.Host != "", false
	if host {
		fmt.Fprintf(&b, "Host: %s\r\n", in.Host)
	}
	for _, name := range slices.Sorted(maps.Keys(in.Headers)) {
		host = host || strings.EqualFold(name, "host")
		framed = framed || strings.EqualFold(name, "content-length") || strings.EqualFold(name, "transfer-encoding")
		for _, value := range in.Headers[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	if !host {
		b.WriteString("Host: localhost\r\n")
	}
	if in.Body != "" && !framed {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(in.Body))
	}
	b.WriteString("\r\n" + in.Body)
	return b.Bytes()
}

// imagine makes the exchange that the request of in would be, up to where its route is looked for. No connection has it, no snapshot is
// pinned, and it is never closed. The fault is why the edge refuses it.
func (g *Gateway) imagine(in *ExplainRequest, maxHead, maxBody int) (*exchange, *fault.Fault) {
	port := uint16(80)
	if in.TLS {
		port = 443
	}
	ctx := &fasthttp.RequestCtx{}
	ctx.Init2(&edgeConn{
		peer: in.peer.Addr(), peerText: []byte(in.peer.Addr().String()), peerPort: in.peer.Port(), localText: []byte("127.0.0.1"), localPort: port,
	}, nil, true)
	x := &exchange{g: g, ctx: ctx}
	x.Start, x.ConnRequests, x.Request.TLS = time.Now(), 1, in.TLS
	x.Decision.Bucket = in.bucket
	x.Begin(&g.settings)
	h := &ctx.Request.Header
	h.DisableNormalizing()
	r := bufio.NewReaderSize(bytes.NewReader(in.wire()), maxHead)
	err := h.Read(r)
	if err == nil {
		err = ctx.Request.ContinueReadBody(r, maxBody, false)
	}
	if err != nil {
		x.Request.Method, x.Request.RawPath = []byte(in.Method), []byte(in.Path)
		g.edge.client(x)
		return x, unreadable(err)
	}
	return x, g.edge.read(ctx, x)
}

// explained is the request of x as the router sees it.
func (x *exchange) explained(in *ExplainRequest) ExplainedRequest {
	q := &x.Request
	path := q.Path
	if path == nil {
		path = q.RawPath
	}
	return ExplainedRequest{
		Method: string(q.Method), Host: string(q.Host), Path: string(path), Query: string(q.Query), Client: string(x.Client.Text),
		Consumer: in.Consumer, TLS: in.TLS,
	}
}
