package proxy

import (
	"strings"
	"sync"
	"testing"

	"headgate/proxy/phase"
)

// What an upstream has sent is told from what plugins have added to the answer, and no answer of another party is taken for one.
func TestReceive(t *testing.T) {
	up := newBackend(t, says("HTTP/1.1 404 Not Found\r\nX-Up: 1\r\nX-Both: up\r\nContent-Length: 2\r\n\r\nok"))
	o := defaults()
	o.Settings.AlwaysUpstreamStatus = true
	r := newGate(t, o).to(up.addr, "probe").route("dead", `{"uri":"/dead","plugins":{"probe":{}},"upstream":{"nodes":{"127.0.0.1:1":1}}}`)
	stopAt := ""
	var mu sync.Mutex
	var got []string
	step := func(name string) func(x *phase.Exchange) phase.Verdict {
		return func(x *phase.Exchange) phase.Verdict {
			if name == stopAt {
				x.Answer(418, phase.TypeText, nil)
				return phase.Stop
			}
			x.Response.Header.Set([]byte("X-Both"), []byte("ours"))
			return phase.Continue
		}
	}
	r.access, r.send = step("access"), step("send")
	r.receive = func(x *phase.Exchange, lines []phase.Field) {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range lines {
			got = append(got, string(f.Name)+"="+string(f.Value))
		}
		got = append(got, string(x.Response.Body))
	}
	for i, tt := range []struct {
		path, stopAt string
		status       int
		want         string
	}{
		{"/x", "", 404, "X-Up=1 X-Both=up ok"},
		{"/x", "access", 418, ""},
		{"/x", "send", 418, ""},
		{"/dead", "", 502, ""},
	} {
		got, stopAt = nil, tt.stopAt
		r.dial(t).say("GET "+tt.path+" HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", tt.status, "*")
		r.eventually("the done phase", func() bool { return r.finished() == i+1 })
		mu.Lock()
		if seen := strings.Join(got, " "); seen != tt.want {
			t.Errorf("%s stopped at %q: received %q, want %q", tt.path, tt.stopAt, seen, tt.want)
		}
		mu.Unlock()
	}
}

// A streamed body that no chunk plugin wants keeps its length, and is not passed through any.
func TestBodiesThatNobodyWants(t *testing.T) {
	long := strings.Repeat("a", 50_000)
	up := newBackend(t, says("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n"+long))
	r := newGate(t, defaults()).to(up.addr, "chunker")
	r.chunk = func(_ *phase.Exchange, p []byte, _ bool) ([]byte, error) {
		return []byte(strings.ToUpper(string(p))), nil
	}
	r.wants = func(x *phase.Exchange) bool { return string(x.Request.Path) == "/wanted" }
	c := r.dial(t)
	for _, tt := range []struct {
		method, path, body string
		length             int64
	}{
		{"GET", "/", long, 50_000},
		{"GET", "/wanted", strings.ToUpper(long), -1},
		{"GET", "/", long, 50_000},
	} {
		resp := c.say(tt.method+" "+tt.path+" HTTP/1.1\r\nHost: a\r\n\r\n").want(tt.method, 200, tt.body)
		if resp.ContentLength != tt.length {
			t.Errorf("%s %s: the length is %d, want %d", tt.method, tt.path, resp.ContentLength, tt.length)
		}
	}
}
