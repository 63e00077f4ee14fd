// Package upstream is the simulator behind every proxy of the rig: an
// HTTP/1.1 server that gives one fixed chat completion to whatever it is asked.
//
// It has to be far cheaper than any proxy in front of it, so it parses only
// what framing needs (the end of the header and Content-Length) and answers
// with one write of bytes built at start-up. It is no general server: it
// refuses chunked requests, and headers or bodies larger than 64 KiB.
package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// CountsPath answers with the request counters, see [Counts].
const CountsPath = "/-/counts"

const (
	firstBuffer = 4 << 10
	maxRequest  = 64 << 10
)

var (
	errTooLarge = errors.New("request larger than 64 KiB")
	errFraming  = errors.New("request without usable framing")
)

// Counts says how many requests were answered, by the first segment of their
// path. It is what shows that a split really happened. Reads of CountsPath are
// not counted.
type Counts struct {
	V1    uint64 `json:"v1"`
	V2    uint64 `json:"v2"`
	Other uint64 `json:"other"`
}

// Total is the number of all counted requests.
func (c Counts) Total() uint64 { return c.V1 + c.V2 + c.Other }

// Sub returns c minus an earlier reading of the same server.
func (c Counts) Sub(earlier Counts) Counts {
	return Counts{V1: c.V1 - earlier.V1, V2: c.V2 - earlier.V2, Other: c.Other - earlier.Other}
}

// Body returns the JSON document that every answer carries, 1 KiB long.
func Body() []byte {
	const (
		head = `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench-1",` +
			`"choices":[{"index":0,"message":{"role":"assistant","content":"`
		tail = `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":42,"completion_tokens":128,"total_tokens":170}}`
		text = "The quick brown fox jumps over the lazy dog. "
		size = 1024
	)
	n := size - len(head) - len(tail)
	return []byte(head + strings.Repeat(text, n/len(text)+1)[:n] + tail)
}

// Server answers connections until its listener closes.
type Server struct {
	answer        []byte
	v1, v2, other atomic.Uint64
}

// New returns a server ready to [Server.Serve].
func New() *Server { return &Server{answer: message(200, "OK", Body())} }

// Counts reads the counters.
func (s *Server) Counts() Counts {
	return Counts{V1: s.v1.Load(), V2: s.v2.Load(), Other: s.other.Load()}
}

// Serve accepts on ln until it is closed, then waits for the connections that
// are still open. Peers end a connection by closing it.
func (s *Server) Serve(ln net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() { s.connection(c) })
	}
}

func (s *Server) connection(c net.Conn) {
	defer c.Close()
	buf := make([]byte, firstBuffer)
	have := 0
	for {
		size, err := requestSize(buf[:have])
		if err != nil {
			_, _ = c.Write(message(400, "Bad Request", []byte(err.Error()))) // the connection ends either way
			return
		}
		if size == 0 || size > have {
			if have == len(buf) || size > len(buf) {
				buf = append(buf, make([]byte, max(size, 2*len(buf))-len(buf))...)
			}
			n, err := c.Read(buf[have:])
			if n == 0 && err != nil {
				return
			}
			have += n
			continue
		}
		if _, err := c.Write(s.respond(buf[:size])); err != nil {
			return
		}
		have = copy(buf, buf[size:have])
	}
}

func (s *Server) respond(request []byte) []byte {
	_, path, _ := bytes.Cut(request, []byte(" "))
	switch {
	case bytes.HasPrefix(path, []byte("/v1/")):
		s.v1.Add(1)
	case bytes.HasPrefix(path, []byte("/v2/")):
		s.v2.Add(1)
	case bytes.HasPrefix(path, []byte(CountsPath+" ")):
		c := s.Counts()
		return message(200, "OK", fmt.Appendf(nil, `{"v1":%d,"v2":%d,"other":%d}`, c.V1, c.V2, c.Other))
	default:
		s.other.Add(1)
	}
	return s.answer
}

// requestSize returns the length of the first request in b with its body, and
// 0 while the header is incomplete.
func requestSize(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= maxRequest {
			return 0, errTooLarge
		}
		return 0, nil
	}
	size := end + 4
	for line := range bytes.SplitSeq(b[:end], []byte("\r\n")) {
		// Only names that start with c or t matter: most lines cost one comparison.
		if len(line) < 15 || (line[0]|0x20 != 'c' && line[0]|0x20 != 't') {
			continue
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		switch {
		case !ok:
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			return 0, errFraming
		case bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
			if err != nil {
				return 0, errFraming
			}
			size += int(n)
		}
	}
	if size > maxRequest {
		return 0, errTooLarge
	}
	return size, nil
}

func message(status int, reason string, body []byte) []byte {
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nServer: simulator\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		status, reason, len(body))
	return append(b, body...)
}
