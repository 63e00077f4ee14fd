package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// alarms is a stream whose deadlines, like those of x/net/http2, end it when they pass, whether or not anything is waited for.
type alarms struct {
	t           testing.TB
	read, write time.Time
	sent        strings.Builder
	body        io.Reader
}

func (a *alarms) SetReadDeadline(t time.Time) error  { a.read = t; return nil }
func (a *alarms) SetWriteDeadline(t time.Time) error { a.write = t; return nil }
func (a *alarms) Header() http.Header                { return http.Header{} }
func (a *alarms) WriteHeader(int)                    {}
func (a *alarms) Flush()                             { a.during("flush", a.write) }
func (a *alarms) Close() error                       { return nil }

func (a *alarms) Write(p []byte) (int, error) {
	a.during("write", a.write)
	return a.sent.Write(p)
}

func (a *alarms) Read(p []byte) (int, error) {
	a.during("read", a.read)
	return a.body.Read(p)
}

func (a *alarms) during(what string, deadline time.Time) {
	if deadline.IsZero() {
		a.t.Errorf("a %s without a deadline", what)
	}
}

// A pause of the upstream is not one of the client: the clocks of an HTTP/2 client run only while something is asked of it.
func TestHTTP2ClocksRest(t *testing.T) {
	s := &alarms{t: t, body: strings.NewReader("abcdef")}
	w := &h2Writer{s, http.NewResponseController(s), patience}
	for range 2 {
		if n, err := w.Write(make([]byte, 2*writePiece+1)); n != 2*writePiece+1 || err != nil || !s.write.IsZero() {
			t.Errorf("after a write of %d bytes, %v: the stream ends at %v", n, err, s.write)
		}
	}
	b := &h2Body{
		r: &http.Request{Body: s, ContentLength: 6}, c: &h2Conn{h: &h2{s: &Server{pause: patience}}}, control: http.NewResponseController(s), left: 6, most: 6,
	}
	for i := range 3 {
		n, err := b.Read(make([]byte, 2))
		if n != 2 || err != nil && i < 2 || !s.read.IsZero() {
			t.Errorf("after a read of %d bytes, %v: the body ends at %v", n, err, s.read)
		}
	}
}
