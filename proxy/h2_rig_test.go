package proxy

//lint:file-ignore SA1019 frames are sent here that net/http would not send

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// newH2Gate is a gateway for a.test and b.test whose clients are offered HTTP/2, in front of up.
func newH2Gate(t testing.TB, o ServerOptions, up *backend) *secureRig {
	t.Helper()
	o.TLS.HTTP2 = true
	r := newSecureGate(t, o)
	r.put("ssls/1", r.ca.ssl("a.test b.test"))
	r.to(up.addr)
	return r
}

// speaker is a client of HTTP/2 with one connection.
func (r *secureRig) speaker(t testing.TB) *http.Client {
	t.Helper()
	cfg := r.config("a.test")
	cfg.NextProtos = []string{"h2"}
	tr := &http2.Transport{DisableCompression: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
		return tls.Dial("tcp", r.addr, cfg)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// ask sends one request to a.test; a line is "Name: value".
func ask(t testing.TB, c *http.Client, method, path string, body io.Reader, lines ...string) (res *http.Response, got string, err error) {
	t.Helper()
	q, err := http.NewRequest(method, "https://a.test"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		if q.Header.Add(name, value); name == "Host" {
			q.Host = value
		}
	}
	if res, err = c.Do(q); err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res, string(raw), err
}

// frames is a client that says what it wants.
type frames struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	head bytes.Buffer
	enc  *hpack.Encoder
}

func (r *secureRig) frames(t testing.TB) *frames {
	t.Helper()
	cfg := r.config("a.test")
	cfg.NextProtos = []string{"h2"}
	c, err := r.try(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	f := &frames{Framer: http2.NewFramer(c, c), t: t, conn: c}
	f.enc = hpack.NewEncoder(&f.head)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = f.WriteSettings()
	return f
}

// open sends a header block of names and values.
func (f *frames) open(id uint32, end bool, pairs ...string) error {
	f.head.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: f.head.Bytes()})
}

// goodbye reads up to the GOAWAY of the gateway.
func (f *frames) goodbye() http2.ErrCode {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Errorf("no GOAWAY: %v", err)
			return 0
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			return g.ErrCode
		}
	}
}

// answer reads up to the answer of a stream: its status, or the code of its reset.
func (f *frames) answer(id uint32) string {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID == id {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == id {
				return frame.ErrCode.String()
			}
		}
	}
}

// taken waits until the gateway has read more than n bytes of a stream's body.
func (f *frames) taken(id uint32, n int) {
	for n >= 0 {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Fatal(err)
		}
		if u, ok := frame.(*http2.WindowUpdateFrame); ok && u.StreamID == id {
			n -= int(u.Increment)
		}
	}
}

// next reads up to the next answer, and returns its stream.
func (f *frames) next() uint32 {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Fatal(err)
		}
		if m, ok := frame.(*http2.MetaHeadersFrame); ok {
			return m.StreamID
		}
	}
}
