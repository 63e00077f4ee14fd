package upstream

import (
	"io"
	"strings"
	"testing"
	"time"

	"headgate/proxy/fault"
)

// expectant is a request body whose client waits.
type expectant struct {
	io.Reader
	size    int64
	invited bool
}

func (e *expectant) Announced() int64 { return e.size }
func (e *expectant) Limit(int64)      {}
func (e *expectant) Invite() error    { e.invited = true; return nil }
func (e *expectant) Expects() bool    { return !e.invited }
func (e *expectant) Hold() error      { return nil }
func (e *expectant) Interrupt()       {}
func (e *expectant) Trailers() []byte { return nil }

// readHead passes over the head of a request.
func (p *peer) readHead() bool {
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = p.br.ReadString('\n'); err != nil {
			return false
		}
	}
	return true
}

// TestAnswerSparesTheUpload: what the upstream says to the head alone is the answer, and nobody is invited to send the body.
func TestAnswerSparesTheUpload(t *testing.T) {
	const interim, refusal = "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
	for name, tt := range map[string]struct {
		reply string
		fault *fault.Fault
	}{"at once": {refusal, nil}, "after an interim answer": {interim + refusal, nil}, "closed": {"", fault.SendFailed}} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				u := start(func(p *peer) {
					if p.readHead() {
						p.send(tt.reply)
						if tt.fault == nil {
							p.gone()
						}
					}
				})
				u.look = 30 * time.Second
				body := &expectant{Reader: strings.NewReader("data"), size: 4}
				x := request("POST", "/", "")
				x.Request.Incoming = body
				if got := do(u, x); tt.fault != nil {
					got.wantFault(t, tt.fault)
				} else {
					got.want(t, 413, "big")
				}
				if body.invited || x.Request.Spent {
					t.Error("the client was told to send its body")
				}
				r.connections(0, 0)
			})
		})
	}
}

// TestUploadIsInvited: an upstream that waits for the body gets it.
func TestUploadIsInvited(t *testing.T) {
	for name, interim := range map[string]string{"silent": "", "interim answer": "HTTP/1.1 100 Continue\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
				u := start(func(p *peer) {
					for p.readHead() {
						p.send(interim)
						body := make([]byte, 4)
						if _, err := io.ReadFull(p.br, body); err != nil {
							return
						}
						p.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + string(body))
					}
				})
				u.look = 5 * time.Millisecond
				for range 3 {
					body := &expectant{Reader: strings.NewReader("data"), size: 4}
					x := request("POST", "/", "")
					x.Request.Incoming = body
					do(u, x).want(t, 200, "data")
					if !body.invited || !x.Request.Spent {
						t.Error("nobody was invited")
					}
				}
				r.idleNodes(u)
			})
		})
	}
}

// TestHeldBodyMeetsTheEnd: a connection that was at its end is replaced also for a request of which only the head was sent.
func TestHeldBodyMeetsTheEnd(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, r *rig, start func(func(p *peer)) *Upstream) {
		u := start(func(p *peer) {
			if p.conn == 0 {
				p.next()
				p.send(ok2)
				p.readHead()
				return
			}
			p.readHead()
			p.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
			p.gone()
		})
		u.look = 30 * time.Second
		get(u).want(t, 200, "ok")
		body := &expectant{Reader: strings.NewReader("data"), size: 4}
		x := request("POST", "/", "")
		x.Request.Incoming = body
		do(u, x).want(t, 413, "big")
		if body.invited || x.Attempts.Count != 1 {
			t.Errorf("invited %t, %d attempts", body.invited, x.Attempts.Count)
		}
		if n := u.nodes[0].Inflight.Load(); n != 0 {
			t.Errorf("%d under way", n)
		}
	})
}
