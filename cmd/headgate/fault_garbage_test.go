package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// responseVector is an answer of the shared test data: its bytes, and what a proxy must make of them.
type responseVector struct {
	Name, Side, Expect string
	Raw                []byte `json:"raw_base64"`
	Method             string `json:"request_method"`
}

// responseVectors reads those that expect something, if the data is there.
func responseVectors(t *testing.T, expect string) (list []responseVector) {
	t.Helper()
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(dir, "testdata", "http1-vectors.jsonl"))
	if os.IsNotExist(err) {
		t.Log("http1-vectors.jsonl is not here (HEADGATE_SHARED names its folder): only the tables of this package have run")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := json.NewDecoder(file); ; {
		var v responseVector
		if err := lines.Decode(&v); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		if v.Side == "response" && v.Expect == expect {
			list = append(list, v)
		}
	}
}

// play has an upstream answer with v and end the connection, and returns what the client of g got.
func (v responseVector) play(t *testing.T, g *gate) (answer, error) {
	t.Helper()
	u := newFaultUpstream(t, nil, func(p *faultPeer) {
		if p.next() != nil {
			p.send(string(v.Raw))
		}
	})
	g.configure("PUT", "/routes/vector", fmt.Sprintf(`{"uri":"/vector","upstream":{"nodes":{%q:1},"retries":0}}`, u.addr))
	return trySend(g.client, v.Method, "http://"+g.addr+"/vector", "")
}

// garbage is what an upstream says that speaks something else, or HTTP badly.
type garbage struct {
	name, said string
	// times is how often it says so, once when it is 0.
	times int
	// closes: only the end of the connection shows that it is no answer. The others are seen through while it stays open.
	closes bool
	// late: the head is right, so that a client may have it before the rest turns out bad.
	late bool
}

func allGarbage() []garbage {
	noise := make([]byte, 64<<10)
	source := rand.New(rand.NewPCG(1, 8))
	for i := range noise {
		noise[i] = byte(source.Uint32())
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	return []garbage{
		{name: "HTTP/0.9", said: "<html>hello</html>"},
		{name: "a TLS alert", said: "\x15\x03\x03\x00\x02\x02\x28"},
		{name: "a TLS handshake", said: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{name: "HTTP/2", said: "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80"},
		{name: "zeros", said: strings.Repeat("\x00", 64<<10)},
		{name: "noise", said: string(noise)},
		{name: "SSH", said: "SSH-2.0-OpenSSH_9.2\r\n"},
		{name: "SMTP", said: "220 mail.example ESMTP\r\n"},
		{name: "ICY", said: "ICY 200 OK\r\n\r\n"},
		{name: "the request", said: "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{name: "half a version", said: "HTTP/", closes: true},
		{name: "no status", said: "HTTP/1.1 OK\r\n\r\n"},
		{name: "status 99", said: "HTTP/1.1 99 Low\r\n\r\n"},
		{name: "status 1000", said: "HTTP/1.1 1000 High\r\n\r\n"},
		{name: "HTTP/3.0", said: "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{name: "a switch of protocols", said: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"},
		{name: "a header of 300 KB", said: ok + "X: " + strings.Repeat("x", 300<<10) + "\r\nContent-Length: 0\r\n\r\n"},
		{name: "300 KB and no line end", said: ok + "X: " + strings.Repeat("x", 300<<10)},
		{name: "30,000 lines", said: ok + strings.Repeat("X: y\r\n", 30_000) + "\r\n"},
		{name: "100,000 early hints", said: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", times: 100_000},
		{name: "100,000 times 100", said: "HTTP/1.1 100 Continue\r\n\r\n", times: 100_000},
		{name: "two lengths", said: ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"},
		{name: "a negative length", said: ok + "Content-Length: -1\r\n\r\n"},
		{name: "a length beyond all", said: ok + "Content-Length: 99999999999999999999\r\n\r\n"},
		{name: "a length in words", said: ok + "Content-Length: two\r\n\r\nab"},
		{name: "another coding", said: ok + "Transfer-Encoding: gzip\r\n\r\nab"},
		{name: "chunked twice", said: ok + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
		{name: "a blank in a name", said: ok + "X Y: z\r\nContent-Length: 0\r\n\r\n"},
		{name: "no name", said: ok + ": z\r\nContent-Length: 0\r\n\r\n"},
		{name: "no colon", said: ok + "nothing\r\nContent-Length: 0\r\n\r\n"},
		{name: "a NUL in a value", said: ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n"},
		{name: "a CR in a value", said: ok + "X: a\rb\r\nContent-Length: 0\r\n\r\n"},
		{name: "a chunk of letters", said: chunkedOK + "xyz\r\n", late: true},
		{name: "a chunk beyond all", said: chunkedOK + "fffffffffffffffff\r\n", late: true},
		{name: "a chunk that is too long", said: chunkedOK + "2\r\nabc\r\n0\r\n\r\n", late: true},
		{name: "a negative chunk", said: chunkedOK + "-2\r\nab\r\n0\r\n\r\n", late: true},
		{name: "a chunk with a long extension", said: chunkedOK + "2;" + strings.Repeat("x", 64<<10) + "\r\nab\r\n0\r\n\r\n", late: true},
	}
}

// TestFault08Garbage: what is no answer gets a 502, as soon as that can be seen, and costs the gateway nothing that lasts.
func TestFault08Garbage(t *testing.T) {
	rounds := 20
	if raceDetector { // the gateway is another process; only the upstream gets slower
		rounds = 3
	}
	all := allGarbage()
	vectors := responseVectors(t, "reject")
	for _, v := range vectors {
		all = append(all, garbage{name: v.Name, said: string(v.Raw), closes: true, late: true})
	}
	u := newFaultUpstream(t, nil, func(p *faultPeer) {
		req := p.next()
		if req == nil {
			return
		}
		i, err := strconv.Atoi(req.Header.Get("X-Case"))
		if err != nil {
			p.send(whole("fine"))
			return
		}
		for n := max(1, all[i].times); n > 0 && p.send(all[i].said); n-- {
		}
		if !all[i].closes {
			p.gone()
		}
	})
	dir := t.TempDir()
	c := startChild(t, dir, "run", "-c", childConfig(t, dir, fmt.Sprintf(`
[store]
provider = "mem"
[[routes]]
id = "all"
uri = "/*"
[routes.upstream]
nodes = { %q = 1 }
`, u.addr)))
	gateway := &volume{c, "http://" + c.addr("gateway"), newClient(t)}
	played, refused := 0, 0
	play := func() {
		for i, g := range all {
			played++
			a, err := trySend(gateway.client, "GET", gateway.url+"/", "", fmt.Sprintf("X-Case: %d", i))
			switch {
			case err == nil && a.status == http.StatusBadGateway, g.late && err != nil && a.status == http.StatusOK:
				refused++
			default:
				t.Errorf("%s: %.300v, %v", g.name, a, err)
			}
		}
	}
	play()
	play()
	before, _ := gateway.memory()
	gateway.forget()
	for range rounds {
		if play(); t.Failed() {
			break
		}
	}
	_, highest := gateway.memory()
	if highest-before > volumeGrowth {
		t.Errorf("the memory has grown from %d to %d KiB", before>>10, highest>>10)
	}
	if a := send(t, gateway.client, "GET", gateway.url+"/", ""); a.status != http.StatusOK || a.body != "fine" {
		t.Errorf("behind it all: %v", a)
	}
	if n := u.arrived(); n != u.connections() || n != played+1 {
		t.Errorf("%d requests on %d connections, %d were sent", n, u.connections(), played+1)
	}
	t.Logf("F8: %d of %d bad answers refused (%d kinds of garbage, %d shared vectors), none of their connections reused, "+
		"memory of the process %+d KiB after %d of them",
		refused, played, len(all)-len(vectors), len(vectors), (highest-before)>>10, rounds*len(all))
}
