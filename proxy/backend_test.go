package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// backend is an upstream in the form of raw TCP.
type backend struct {
	addr string
	mu   sync.Mutex
	got  []message
	open int // connections
}

// newBackend serves every connection with handle, which ends it by returning false.
func newBackend(t testing.TB, handle func(c net.Conn, m message) bool) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: l.Addr().String()}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, true)
			b.add(1)
			serving.Go(func() {
				defer b.add(-1)
				defer c.Close()
				in := bufio.NewReaderSize(c, 1<<16)
				for {
					m, ok := readMessage(in)
					if !ok {
						return
					}
					b.mu.Lock()
					b.got = append(b.got, m)
					b.mu.Unlock()
					if !handle(c, m) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return b
}

func (b *backend) add(n int) {
	b.mu.Lock()
	b.open += n
	b.mu.Unlock()
}

// take returns what has been received since the last call.
func (b *backend) take() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.got
	b.got = nil
	return got
}

// says answers every request with raw.
func says(raw string) func(net.Conn, message) bool {
	return func(c net.Conn, _ message) bool {
		_, err := io.WriteString(c, raw)
		return err == nil
	}
}

const ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// message is a request as the upstream saw it; bad says what is wrong with it.
type message struct {
	head, method, target string
	lines                []string
	body, bad            string
	trailers             []string // the lines behind a chunked body
}

// readMessage is a strict reader of requests.
func readMessage(in *bufio.Reader) (m message, ok bool) {
	length, hosts, lengths, chunked := 0, 0, 0, 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			m.bad = "cut"
			return m, m.head != ""
		}
		m.head += line
		line, crlf := strings.CutSuffix(line, "\r\n")
		if !crlf || strings.ContainsAny(line, "\r\x00") {
			m.bad = "control byte in " + strconv.Quote(line)
		}
		if line == "" {
			break
		}
		if m.method == "" {
			parts := strings.Split(line, " ")
			if len(parts) != 3 || parts[2] != "HTTP/1.1" {
				m.bad = "request line " + strconv.Quote(line)
				return m, true
			}
			m.method, m.target = parts[0], parts[1]
			continue
		}
		m.lines = append(m.lines, line)
		name, value, _ := strings.Cut(line, ":")
		if name == "" || strings.ContainsAny(name, " \t") {
			m.bad = "name " + strconv.Quote(line)
		}
		switch strings.ToLower(name) {
		case "host":
			hosts++
		case "transfer-encoding":
			chunked++
			if line != "Transfer-Encoding: chunked" {
				m.bad = line
			}
		case "content-length":
			lengths++
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil || length < 0 {
				m.bad = line
				return m, true
			}
		}
	}
	if hosts != 1 || lengths+chunked > 1 {
		m.bad = fmt.Sprintf("%d hosts, %d lengths, %d codings", hosts, lengths, chunked)
	}
	if chunked > 0 {
		body, err := io.ReadAll(httputil.NewChunkedReader(in))
		if m.body = string(body); err != nil {
			m.bad = "cut"
			return m, true
		}
		for {
			line, err := in.ReadString('\n')
			line, crlf := strings.CutSuffix(line, "\r\n")
			switch {
			case err != nil || !crlf:
				m.bad = "cut"
				return m, true
			case line == "":
				return m, true
			}
			m.trailers = append(m.trailers, line)
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		m.bad = "cut"
	}
	m.body = string(body)
	return m, true
}

// has returns the values of the lines called name.
func (m message) has(name string) (values []string) {
	for _, l := range m.lines {
		if n, v, _ := strings.Cut(l, ":"); strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}
