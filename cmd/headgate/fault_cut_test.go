package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"headgate/conf"
)

// cutAnswer is an answer that its upstream does not finish.
type cutAnswer struct {
	name string
	path string // "" for /cut
	sent string
	// unbounded: its end is that of the connection, so that it is cut only if the connection does not end in order.
	unbounded bool
	// lament: the client of its stream of events must be told.
	lament bool
}

const chunkedOK = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

func cutAnswers() []cutAnswer {
	const events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	big := strings.Repeat("0123456789abcdef", 8<<10)
	list := []cutAnswer{
		{name: "length, no byte of the body", sent: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"},
		{name: "length, inside", sent: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"},
		{name: "length, one byte short", sent: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhelloworl"},
		{name: "length, large", sent: "HTTP/1.1 200 OK\r\nContent-Length: 131073\r\n\r\n" + big},
		{name: "chunked, behind the head", sent: chunkedOK},
		{name: "chunked, between chunks", sent: chunkedOK + chunk("hello")},
		{name: "chunked, between large chunks", sent: chunkedOK + chunk(big)},
		{name: "chunked, inside a chunk", sent: chunkedOK + "a\r\nhello"},
		{name: "chunked, inside a size", sent: chunkedOK + chunk("hello") + "1"},
		{name: "chunked, behind a size", sent: chunkedOK + chunk("hello") + "5\r\n"},
		{name: "chunked, inside the line end of a size", sent: chunkedOK + chunk("hello") + "5\r"},
		{name: "chunked, before the line end of a chunk", sent: chunkedOK + "5\r\nhello"},
		{name: "chunked, inside the line end of a chunk", sent: chunkedOK + "5\r\nhello\r"},
		{name: "chunked, behind the last size", sent: chunkedOK + chunk("hello") + "0"},
		{name: "chunked, before the last line end", sent: chunkedOK + chunk("hello") + "0\r\n"},
		{name: "chunked, inside the last line end", sent: chunkedOK + chunk("hello") + "0\r\n\r"},
		{name: "chunked, inside the trailer", sent: chunkedOK + chunk("hello") + "0\r\nX-T: 1"},
		{name: "chunked, behind the trailer", sent: chunkedOK + chunk("hello") + "0\r\nX-T: 1\r\n"},
		{name: "until the end", sent: "HTTP/1.1 200 OK\r\n\r\nhello", unbounded: true},
		{name: "events with a length", sent: events + "Content-Length: 100\r\n\r\ndata: 1\n\n"},
		{name: "events until the end", sent: events + "\r\ndata: 1\n\n", unbounded: true, lament: true},
	}
	for _, path := range []string{"/v1/chat/completions", "/v1/messages", "/v1/responses", "/events"} {
		for where, body := range map[string]string{
			"nothing yet":     "",
			"between events":  chunk("data: {\"a\":1}\n\n"),
			"inside a line":   chunk("data: {\"a\":1}\n\n" + "data: {\"a"),
			"inside an event": chunk("data: {\"a\":1}\n\n" + "data: 1\n"),
			"inside a chunk":  "ff\r\ndata: {\"a\":1}\n\nda",
		} {
			list = append(list, cutAnswer{name: path + " " + where, path: path, sent: sseHead + body, lament: true})
		}
	}
	return list
}

// errorEvent says whether a stream of events ends with a whole event that tells of an error.
func errorEvent(stream string) bool {
	stream, ended := strings.CutSuffix(stream, "\n\n")
	if !ended {
		return false
	}
	last := stream[strings.LastIndex(stream, "\n\n")+1:]
	for line := range strings.Lines(last) {
		if data, ok := strings.CutPrefix(line, "data: {"); ok && (strings.Contains(data, `"error"`)) {
			return json.Valid([]byte("{" + data))
		}
	}
	return false
}

// cutClient asks for an answer and returns what came of it; err says that the body did not end in order.
type cutClient func(path string, lines ...string) (a answer, err error)

// TestFault06CutAnswers: an answer that its upstream did not finish never looks finished to a client, wherever it is cut, however the
// connection ends and whatever the client speaks. A stream of events ends with one that tells of it.
func TestFault06CutAnswers(t *testing.T) {
	ca, caFile := testAuthority(t)
	cert, key, roots := ownPair(t, "gate.test")
	c := onLoopback(t, conf.Default())
	c.Upstream.CAFile = caFile
	dir := t.TempDir()
	c.Gateway.TLS.Listen = []string{"127.0.0.1:0"}
	c.Gateway.TLS.CertFile, c.Gateway.TLS.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeFile(t, c.Gateway.TLS.CertFile, cert)
	writeFile(t, c.Gateway.TLS.KeyFile, key)
	g := startGate(t, c)

	cuts := cutAnswers()
	for _, scheme := range []string{"http", "https"} {
		u := newFaultUpstream(t, serverTLS(t, ca, scheme), func(p *faultPeer) {
			req := p.next()
			var i int
			if req == nil {
				return
			}
			if _, err := fmt.Sscan(req.Header.Get("X-Case"), &i); err != nil {
				return
			}
			p.send(cuts[i].sent)
			if req.Header.Get("X-End") == "reset" {
				p.reset()
			} else {
				p.cut()
			}
		})
		g.configure("PUT", "/routes/"+scheme, fmt.Sprintf(`{"uri":"/*","vars":[["http_x_scheme","==",%q]],
			"upstream":{"scheme":%q,"pass_host":"node","nodes":{%q:1}}}`, scheme, scheme, u.addr))
	}

	asking := func(client *http.Client, origin string) cutClient {
		return func(path string, lines ...string) (answer, error) {
			return trySend(client, "GET", origin+path, "", lines...)
		}
	}
	clients := map[string]cutClient{
		"HTTP/1.1": asking(g.client, "http://"+g.addr),
		"HTTP/2":   asking(secureClient(t, g.secure[0].Addr().String(), roots, true), "https://gate.test"),
		"HTTP/1.0": func(path string, lines ...string) (answer, error) {
			res, body, err := dialWire(t, g.addr).exchange("GET " + path + " HTTP/1.0\r\nHost: a\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
			if res == nil {
				return answer{}, err
			}
			return answer{res.StatusCode, res.Header, body}, err
		},
	}
	played, signalled, streams, laments := 0, 0, 0, 0
	for speaks, ask := range clients {
		for _, scheme := range []string{"http", "https"} {
			for _, end := range []string{"closed", "reset"} {
				for i, tt := range cuts {
					if tt.unbounded && scheme == "http" && end == "closed" { // this is how it is to end
						continue
					}
					if tt.path == "" {
						tt.path = "/cut"
					}
					played++
					a, err := ask(tt.path, fmt.Sprintf("X-Case: %d", i), "X-Scheme: "+scheme, "X-End: "+end)
					switch {
					case a.status == http.StatusBadGateway && err == nil, a.status == http.StatusOK && err != nil:
						signalled++
					default:
						t.Errorf("%s from %s to %s, %s: it looks complete: %v, %v", tt.name, scheme, speaks, end, a, err)
					}
					if !tt.lament || a.status != http.StatusOK { // a RST may overtake what was sent before it
						continue
					}
					if streams++; errorEvent(a.body) {
						laments++
					} else {
						t.Errorf("%s from %s to %s, %s: no event tells of it: %q", tt.name, scheme, speaks, end, a.body)
					}
				}
			}
		}
	}
	vectors := 0
	for _, v := range responseVectors(t, "truncated") {
		vectors++
		a, err := v.play(t, g)
		if err == nil && a.status != http.StatusBadGateway {
			t.Errorf("%s: it looks complete: %v", v.Name, a)
		}
	}
	// The gateway is none the worse for it.
	well := newUpstream(t, "fine", nil)
	g.configure("PUT", "/routes/well", fmt.Sprintf(`{"uri":"/well","upstream":{"nodes":{%q:1}}}`, well.addr))
	if a := g.get("/well"); a.status != http.StatusOK {
		t.Error(a)
	}
	t.Logf("F6: %d of %d cut answers signalled (%d kinds, closed and reset, plain and TLS, to HTTP/1.0, HTTP/1.1 and HTTP/2), "+
		"an error event first in %d of %d event streams, %d of %d shared vectors", signalled, played, len(cuts), laments, streams, vectors, vectors)
}
