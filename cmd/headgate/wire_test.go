package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/conf"
)

var update = flag.Bool("update", false, "write what was seen into the golden files; review the changes")

// TestWire plays every golden file: a gateway with that configuration, the client's bytes, and byte for byte what came of them.
func TestWire(t *testing.T) {
	files := goldenFiles(t)
	if len(files) < 40 {
		t.Errorf("%d files, expected at least 40", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txt"), func(t *testing.T) {
			g := readGolden(t, file)
			got := newStage(t, g).play()
			if *update {
				g.save(t, got)
				return
			}
			g.compare(t, got)
		})
	}
}

// stage is everything that plays one golden.
type stage struct {
	t       *testing.T
	golden  *golden
	gate    *gate
	names   *strings.Replacer // of placeholders, by what they stand for
	masks   *strings.Replacer // the other way round
	replies []string          // what the upstreams have still to say

	mu       sync.Mutex
	saw      strings.Builder
	sawCount int
	received []byte // by the client
}

func newStage(t *testing.T, g *golden) *stage {
	t.Helper()
	s := &stage{t: t, golden: g}
	upstream, upstream2, dead := s.listen("{{upstream}}"), s.listen("{{upstream2}}"), deadAddr(t)
	addresses := strings.NewReplacer("{{upstream}}", upstream, "{{upstream2}}", upstream2, "{{dead}}", dead,
		"{{upstream port}}", portOf(upstream), "{{upstream2 port}}", portOf(upstream2), "{{dead port}}", portOf(dead))
	for _, message := range strings.SplitAfter(g.sections["upstream"], "{{next}}\n") {
		if message = strings.TrimSuffix(message, "{{next}}\n"); message != "" {
			s.replies = append(s.replies, addresses.Replace(message))
		}
	}
	c, err := conf.Parse(filepath.Base(g.file), []byte(addresses.Replace(g.sections["config"])), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.gate = startGate(t, onLoopback(t, c))
	port := portOf(s.gate.addr)
	s.names = strings.NewReplacer("{{upstream}}", upstream, "{{upstream2}}", upstream2, "{{dead}}", dead, "{{port}}", port)
	s.masks = strings.NewReplacer(upstream, "{{upstream}}", upstream2, "{{upstream2}}", dead, "{{dead}}", port, "{{port}}")
	for call := range strings.SplitSeq(s.names.Replace(addresses.Replace(g.sections["admin"])), "\n\n") {
		if call = strings.TrimSpace(call); call != "" {
			line, body, _ := strings.Cut(call, "\n")
			method, path, _ := strings.Cut(line, " ")
			s.gate.configure(method, path, body)
		}
	}
	return s
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// play sends the request and returns the expectations as they should have been.
func (s *stage) play() map[string]string {
	t := s.t
	request := wireText(t, s.names.Replace(s.golden.sections["request"]))
	c, err := net.DialTimeout("tcp", s.gate.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	open := s.readReplies(c, wantsBody(request))
	s.mu.Lock()
	got := map[string]string{"saw": s.saw.String(), "reply": s.written(string(s.received))}
	s.mu.Unlock()
	if _, ok := s.golden.sections["log"]; ok {
		got["log"] = s.log()
	}
	if !open {
		got["reply"] += "{{closed}}\n"
		return got
	}
	s.probe(c)
	got["reply"] += "{{open}}\n"
	return got
}

// wantsBody tells of each request in a row whether its answer has a body: that of a HEAD has none.
func wantsBody(requests string) func(i int) bool {
	var heads []bool
	for line := range strings.SplitSeq(requests, "\r\n") {
		if strings.Contains(line, " HTTP/") {
			heads = append(heads, strings.HasPrefix(line, "HEAD "))
		}
	}
	return func(i int) bool { return i >= len(heads) || !heads[i] }
}

// readReplies reads the answers and says whether the connection can be used again.
func (s *stage) readReplies(c net.Conn, wantsBody func(i int) bool) (open bool) {
	in := bufio.NewReader(io.TeeReader(c, s))
	for i := 0; i < s.golden.replies; {
		req := &http.Request{Method: "GET"}
		if !wantsBody(i) {
			req.Method = "HEAD"
		}
		res, err := http.ReadResponse(in, req)
		if err != nil {
			return s.ended(c, err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return s.ended(c, err)
		}
		if res.StatusCode >= 200 {
			i++
		}
		if res.Close {
			_, err := io.Copy(io.Discard, in)
			return s.ended(c, err)
		}
	}
	return true
}

// Write takes what the client has got.
func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, p...)
	return len(p), nil
}

// ended sees to it that the end of an answer was that of the connection and not of our patience.
func (s *stage) ended(c net.Conn, err error) bool {
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		s.t.Errorf("the connection from %s hangs", c.LocalAddr())
	}
	return false
}

// probe sees to it that the connection is where a new request begins.
func (s *stage) probe(c net.Conn) {
	res, _, err := (&wireConn{c, bufio.NewReader(c)}).exchange("GET /probe HTTP/1.1\r\nHost: probe.invalid\r\nConnection: close\r\n\r\n")
	if err != nil || !res.Close {
		s.t.Errorf("after the replies the connection is of no use: %+v, %v", res, err)
	}
}

var dateLine = regexp.MustCompile(`(?m)^Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r$`)

func (s *stage) written(raw string) string {
	return s.masks.Replace(writtenText(dateLine.ReplaceAllString(raw, "Date: {{date}}\r")))
}

// log returns the lines of the access log, as many as there were answers.
func (s *stage) log() string {
	var text []byte
	eventually(s.t, "the access log", func() bool {
		text = s.gate.readLog()
		return bytes.Count(text, []byte("\n")) >= s.golden.replies
	})
	lines := slices.Sorted(strings.Lines(s.masks.Replace(string(text))))
	return strings.Join(lines, "")
}

// listen starts one of the upstreams.
func (s *stage) listen(name string) string {
	return rawServer(s.t, func(c net.Conn) { s.serve(name, c) })
}

func (s *stage) serve(name string, c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	for {
		request, err := readRequest(c)
		if err != nil {
			return
		}
		if !s.answer(c, s.note(name, request)) {
			return
		}
	}
}

// note writes down what arrived and returns what is to be answered.
func (s *stage) note(name, request string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sawCount++
	if s.sawCount > 1 {
		s.saw.WriteString("{{next}}\n")
	}
	if name != "{{upstream}}" {
		fmt.Fprintf(&s.saw, "%s\n", name)
	}
	s.saw.WriteString(s.masks.Replace(writtenText(request)))
	if len(s.replies) == 0 {
		return "HTTP/1.1 200 OK\\r\\n\nContent-Length: 3\\r\\n\n\\r\\n\nok\\n\n"
	}
	reply := s.replies[0]
	s.replies = s.replies[1:]
	return reply
}

// answer plays a reply. It says whether the connection goes on.
func (s *stage) answer(c net.Conn, reply string) bool {
	text := ""
	say := func() bool {
		_, err := io.WriteString(c, wireText(s.t, text))
		text = ""
		return err == nil
	}
	for line := range strings.Lines(reply) {
		direction, ok := strings.CutPrefix(strings.TrimSuffix(line, "}}\n"), "{{")
		if !ok || !strings.HasSuffix(line, "}}\n") {
			text += line
			continue
		}
		if !say() {
			return false
		}
		switch what, argument, _ := strings.Cut(direction, " "); what {
		case "close":
			return false
		case "reset":
			_ = c.(*net.TCPConn).SetLinger(0)
			return false
		case "silence":
			_, _ = c.Read(make([]byte, 1)) // until the gateway closes
			return false
		case "until":
			s.waitFor(argument)
		default:
			s.t.Errorf("unknown direction %s", line)
		}
	}
	return say()
}

// waitFor waits until the client has got text.
func (s *stage) waitFor(text string) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		got := bytes.Contains(s.received, []byte(text))
		s.mu.Unlock()
		if got {
			return
		}
	}
	s.t.Errorf("the client never got %q", text)
}

// readRequest reads a request as the gateway writes them: a head and, with a Content-Length or in chunks, a body. Nothing may follow it.
func readRequest(c net.Conn) (string, error) {
	var request []byte
	buf := make([]byte, 64<<10)
	want, head := -1, 0 // head: where chunks begin
	for want < 0 || len(request) < want {
		n, err := c.Read(buf)
		request = append(request, buf[:n]...)
		if err != nil {
			return "", err
		}
		if end := bytes.Index(request, []byte("\r\n\r\n")); end >= 0 && want < 0 {
			want = end + 4
			if m := contentLength.FindSubmatch(request[:want]); m != nil {
				length, _ := strconv.Atoi(string(m[1]))
				want += length
			} else if bytes.Contains(request[:want], []byte("\r\nTransfer-Encoding: chunked\r\n")) {
				want, head = -1, want
			}
		}
		if head > 0 && bytes.Contains(request[head-2:], []byte("\r\n0\r\n")) && bytes.HasSuffix(request, []byte("\r\n\r\n")) {
			want = len(request)
		}
	}
	return string(request), nil
}

var contentLength = regexp.MustCompile(`(?i)\r\ncontent-length: *(\d+)\r\n`)
