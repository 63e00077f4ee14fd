package upstream

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
)

// stuck is a request body of which the client has sent the beginning, and no more until it is interrupted.
type stuck struct {
	sent io.Reader
	end  chan struct{}
	once sync.Once
}

func newStuck(sent string) *stuck {
	return &stuck{sent: strings.NewReader(sent), end: make(chan struct{})}
}

func (s *stuck) Read(p []byte) (int, error) {
	if n, _ := s.sent.Read(p); n > 0 {
		return n, nil
	}
	<-s.end
	return 0, fault.ClientGone
}

func (s *stuck) Trailers() []byte { return nil }
func (s *stuck) Announced() int64 { return 100 }
func (s *stuck) Limit(int64)      {}
func (s *stuck) Invite() error    { return nil }
func (s *stuck) Hold() error      { return nil }
func (s *stuck) Interrupt()       { s.once.Do(func() { close(s.end) }) }

// TestTimeoutNoticeDuringUpload: an upstream that has waited too long for a body says so, on a connection that had served before as on a new one.
func TestTimeoutNoticeDuringUpload(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.upstream(nil, serve(t, func(p *peer) {
		p.next()
		p.send(ok2)
		for {
			if line, err := p.br.ReadString('\n'); err != nil || line == "\r\n" {
				break
			}
		}
		p.send("HTTP/1.1 408 Request Time-out\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, p.br)
	}))
	post(u).want(t, 200, "ok")
	x := request(http.MethodPost, "/", "")
	x.Request.Incoming = newStuck("some")
	do(u, x).want(t, 408, "")
	if n := u.nodes[0].Inflight.Load(); n != 0 {
		t.Errorf("%d under way", n)
	}
}

// informed counts interim answers.
type informed int

func (n *informed) Inform(int, []phase.Field) { *n++ }

// TestInformedOfFew: the bound of interim answers is that of the client, however many attempts are made for it.
func TestInformedOfFew(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, tt := range []struct {
		hints string
		want  informed
	}{
		{strings.Repeat("HTTP/1.1 103 x\r\nLink: </a>\r\n\r\n", 3), maxInformed},
		{"HTTP/1.1 103 x\r\nA: " + strings.Repeat("b", maxInformedBytes/2) + "\r\n\r\n", 1},
	} {
		script := func(end string) *server {
			return serve(t, func(p *peer) {
				p.next()
				p.send(tt.hints + end)
			})
		}
		const busy = "HTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		u := r.upstream(func(d *resource.Upstream) { d.Retry = &resource.Retry{Statuses: []int{503}} }, script(busy), script(busy), script(""))
		x, n := request("GET", "/", ""), informed(0)
		x.Informer = &n
		do(u, x)
		if x.Attempts.Count != 3 || n != tt.want {
			t.Errorf("%d interim answers of %d attempts, want %d", n, x.Attempts.Count, tt.want)
		}
	}
}
