package upstream

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func start(t *testing.T) (*Server, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		ln.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, c
}

func TestBodyIsOneKiBOfJSON(t *testing.T) {
	if len(Body()) != 1024 || !json.Valid(Body()) {
		t.Fatalf("body of %d bytes, valid JSON: %v", len(Body()), json.Valid(Body()))
	}
}

// Requests cut at every possible place and requests glued together must both
// be answered one by one, over one connection.
func TestFraming(t *testing.T) {
	s, c := start(t)
	answers := bufio.NewReader(c)
	expect := func(what string) {
		t.Helper()
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || string(body) != string(Body()) {
			t.Fatalf("%s: status %d, %d bytes, %v", what, res.StatusCode, len(body), err)
		}
	}
	big := strings.Repeat("x", 20<<10)
	post := "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\nhello"
	for i := 1; i < len(post); i++ {
		io.WriteString(c, post[:i])
		io.WriteString(c, post[i:])
		expect("cut")
	}
	io.WriteString(c, post+strings.Replace(post, "/v1/", "/v2/", 1)+"GET / HTTP/1.1\r\n\r\n")
	expect("first of three")
	expect("second of three")
	expect("third of three")
	io.WriteString(c, "POST /big HTTP/1.1\r\nContent-Length: 20480\r\n\r\n"+big)
	expect("body larger than the first buffer")

	want := Counts{V1: uint64(len(post)), V2: 1, Other: 2}
	if got := s.Counts(); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	io.WriteString(c, "GET "+CountsPath+" HTTP/1.1\r\n\r\n")
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Counts
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got != want {
		t.Errorf("counts over the wire %+v (%v), want %+v", got, err, want)
	}
}

func TestRefusals(t *testing.T) {
	for name, request := range map[string]string{
		"chunked":        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bad length":     "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"huge body":      "POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
		"endless header": "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxRequest/6),
	} {
		t.Run(name, func(t *testing.T) {
			s, c := start(t)
			io.WriteString(c, request)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != 400 {
				t.Fatalf("got %v, %v", res, err)
			}
			if n := s.Counts().Total(); n != 0 {
				t.Errorf("a refused request was counted (%d)", n)
			}
		})
	}
}
