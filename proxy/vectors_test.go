package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"headgate/proxy/phase/wire"
	"headgate/proxy/route"
)

// readVectors reads a file of the shared test data, if it is there.
func readVectors[T any](t *testing.T, name string) (list []T) {
	t.Helper()
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	file, err := os.Open(filepath.Join(dir, "testdata", name))
	if os.IsNotExist(err) {
		t.Logf("%s is not here (HEADGATE_SHARED names its folder): only this package's own tables have run", name)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return decodeVectors[T](t, file)
}

func decodeVectors[T any](t *testing.T, r io.Reader) (list []T) {
	t.Helper()
	for lines := json.NewDecoder(r); ; {
		var v T
		if err := lines.Decode(&v); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
}

// vector is one connection's worth of requests, or an answer: its bytes, and what must become of them.
type vector struct {
	Name, Side, Expect, RFC, Why string
	Raw                          []byte `json:"raw_base64"`
	Text                         string `json:"raw"` // in the place of Raw: a byte for each character
	OKBefore                     int    `json:"ok_before"`
	Messages                     []struct {
		Method, Target string
		Body           string `json:"body_sha256"`
		Content        string // in the place of Body
		Len            int    `json:"body_len"`
	}
	Method string `json:"request_method"` // that an answer is for
	Status int    // of the answer
}

// rawVectors are let through when targets go out as they came: what APISIX does (apisix-observed 2.2), and why it is not the default.
var rawVectors = map[string]bool{
	"http11probe/RFC9112-3.2-FRAGMENT-IN-TARGET":                    true,
	"llhttp/request/uri: Disallow UTF-8 in URI path in strict mode": true,
	"llhttp/request/uri: Fragment in URI":                           true,
}

// judge says what is wrong with how v was treated: got reached the upstream, reply the client. raw: targets are forwarded as sent.
func (v vector) judge(got []message, reply string, raw bool) string {
	for _, m := range got {
		if m.bad != "" {
			return "forwarded: " + m.bad
		}
	}
	switch v.Expect {
	case "reject", "incomplete":
		if len(got) > v.OKBefore {
			return fmt.Sprintf("%d messages passed, %d are valid", len(got), v.OKBefore)
		}
		if last := strings.LastIndex(reply, "HTTP/1.1 "); v.Expect == "reject" && last >= 0 && reply[last+9] < '4' {
			return "the last answer is no refusal: " + reply[last:]
		}
		return ""
	case "accept":
		if len(got) != len(v.Messages) {
			return fmt.Sprintf("%d of %d valid messages passed: %q", len(got), len(v.Messages), reply)
		}
	default:
		if len(got) > len(v.Messages) {
			return fmt.Sprintf("%d messages became %d", len(v.Messages), len(got))
		}
		return ""
	}
	sent := readSent(v.Raw)
	for i, want := range v.Messages {
		sum := sha256.Sum256([]byte(got[i].body))
		if got[i].method != want.Method || len(got[i].body) != want.Len || hex.EncodeToString(sum[:8]) != want.Body {
			return fmt.Sprintf("message %d: %s with %d bytes", i, got[i].method, len(got[i].body))
		}
		if i >= len(sent) {
			return fmt.Sprintf("message %d cannot be read by the reference", i)
		}
		if target := sent[i].forwardedTarget(raw); got[i].target != target || got[i].body != sent[i].body {
			return fmt.Sprintf("message %d went to %s, not to %s; %d bytes instead of %d", i, got[i].target, target, len(got[i].body), len(sent[i].body))
		}
		if a, b := endToEnd(got[i].lines), endToEnd(sent[i].lines); !slices.Equal(a, b) {
			return fmt.Sprintf("message %d: the lines %q went on as %q", i, b, a)
		}
	}
	return ""
}

// readSent is a reader of valid requests that shares nothing with the gateway.
func readSent(raw []byte) (list []message) {
	in := bufio.NewReaderSize(bytes.NewReader(raw), 1<<17)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return list
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			continue
		}
		words := strings.Split(line, " ")
		if len(words) != 3 {
			return list
		}
		m := message{method: words[0], target: words[1]}
		for {
			if line, err = in.ReadString('\n'); err != nil {
				return list
			}
			if line = strings.TrimSuffix(line, "\r\n"); line == "" {
				break
			}
			m.lines = append(m.lines, line)
		}
		var body []byte
		if n := m.has("Content-Length"); len(n) > 0 {
			length, _ := strconv.Atoi(n[0])
			body = make([]byte, length)
			_, err = io.ReadFull(in, body)
		} else if len(m.has("Transfer-Encoding")) > 0 {
			body, err = readChunks(in)
		}
		if err != nil {
			return list
		}
		m.body = string(body)
		list = append(list, m)
	}
}

// readChunks reads a valid chunked body and its trailers.
func readChunks(in *bufio.Reader) (body []byte, err error) {
	for size := int64(1); size > 0; {
		line, err := in.ReadString('\n')
		if err != nil {
			return body, err
		}
		digits, _, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ";")
		if size, err = strconv.ParseInt(strings.TrimSpace(digits), 16, 64); err != nil {
			return body, err
		}
		piece := make([]byte, size)
		if _, err = io.ReadFull(in, piece); err != nil {
			return body, err
		}
		if body = append(body, piece...); size > 0 {
			_, err = in.Discard(len("\r\n"))
		}
		if err != nil {
			return body, err
		}
	}
	for line := "-"; err == nil && line != "\r\n"; {
		line, err = in.ReadString('\n')
	}
	return body, err
}

// forwardedTarget is where m must be forwarded to: the path in its one form, the query as it is.
func (m message) forwardedTarget(raw bool) string {
	target := m.target
	if i := strings.Index(target, "://"); i > 0 && target[0] != '/' {
		end := strings.IndexAny(target[i+3:], "/?")
		switch {
		case end >= 0:
			target = target[i+3+end:]
		case m.method == "OPTIONS":
			return "*"
		default:
			target = ""
		}
	}
	path, query, found := strings.Cut(target, "?")
	if path == "" {
		path = "/"
	}
	if normal, err := route.AppendNormalized(nil, []byte(path)); err == nil && string(normal) != path && !raw {
		path = string(wire.AppendPath(nil, normal))
	}
	if found {
		path += "?" + query
	}
	return path
}

// endToEnd returns the lines that are nobody's but the client's and the upstream's, as "name:value": all but those of RFC 9110 section 7.6.1
// and those that the gateway writes itself or never believes.
func endToEnd(lines []string) (left []string) {
	var named []string
	for _, l := range lines {
		if name, value, _ := strings.Cut(l, ":"); strings.EqualFold(name, "connection") {
			for e := range strings.SplitSeq(value, ",") {
				named = append(named, strings.ToLower(strings.Trim(e, " \t")))
			}
		}
	}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ":")
		low := strings.ToLower(name)
		switch low {
		case "host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings",
			"proxy-authenticate", "proxy-authorization", "expect", "forwarded", "x-real-ip":
			continue
		case "content-type", "authorization", "cookie", "apikey", "x-api-key": // stay, whatever Connection says
		default:
			if slices.Contains(named, low) || strings.Contains(name, "_") || strings.HasPrefix(low, "x-forwarded-") || strings.HasPrefix(low, "x-consumer-") {
				continue
			}
		}
		left = append(left, name+":"+strings.Trim(value, " \t"))
	}
	return left
}

// score counts what became of vectors, by what must become of them.
type score struct {
	right, all map[string]int
	passed     int // of those that may go either way
}

func newScore() *score { return &score{right: map[string]int{}, all: map[string]int{}} }

func (s *score) note(kind string, right bool) {
	s.all[kind]++
	if right {
		s.right[kind]++
	}
}

func (s *score) String() string {
	var parts []string
	for _, kind := range []string{"accept", "must_reject", "should_reject", "may_accept", "incomplete", "either", "truncated"} {
		if n := s.all[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d/%d", kind, s.right[kind], n))
		}
	}
	return strings.Join(parts, ", ")
}

// kind is what a vector is counted as.
func (v vector) kind() string {
	if v.Expect == "reject" {
		return v.RFC
	}
	return v.Expect
}

// playRequests sends every request of the list and says how many were treated rightly.
func playRequests(t *testing.T, list []vector, raw bool) *score {
	t.Helper()
	up := newBackend(t, says(ok200))
	o := defaults()
	o.RawTarget = raw
	r := newGate(t, o).to(up.addr).route("server", `{"uri":"*","on_client_abort":"finish","upstream":{"nodes":{"`+up.addr+`":1}}}`)
	s := newScore()
	for _, v := range list {
		if v.Side != "request" || raw && rawVectors[v.Name] {
			continue
		}
		reply := r.once(t, string(v.Raw))
		got := up.take()
		wrong := v.judge(got, reply, raw)
		if s.note(v.kind(), wrong == ""); wrong != "" {
			t.Errorf("%s (%s, %s): %s\n%q", v.Name, v.RFC, v.Why, wrong, v.Raw[:min(len(v.Raw), 400)])
		}
		if v.Expect == "either" && len(got) == len(v.Messages) {
			s.passed++
		}
	}
	return s
}

func TestRequestVectors(t *testing.T) {
	list := readVectors[vector](t, "http1-vectors.jsonl")
	if list == nil {
		return
	}
	for _, raw := range []bool{false, true} {
		t.Run(fmt.Sprintf("raw=%t", raw), func(t *testing.T) {
			s := playRequests(t, list, raw)
			t.Logf("requests: %s (%d of them passed)", s, s.passed)
		})
	}
}

// playAnswers has an upstream that answers with each answer of the list and ends the connection.
func playAnswers(t *testing.T, list []vector) *score {
	t.Helper()
	s := newScore()
	var answer atomic.Pointer[[]byte]
	up := newBackend(t, func(c net.Conn, _ message) bool {
		_, _ = c.Write(*answer.Load())
		return false
	})
	r := newGate(t, defaults()).to(up.addr)
	for _, v := range list {
		if v.Side != "response" {
			continue
		}
		answer.Store(&v.Raw)
		wrong := v.judgeAnswer(r.once(t, v.Method+" / HTTP/1.1\r\nHost: a\r\n\r\n"))
		up.take()
		if s.note(v.kind(), wrong == ""); wrong != "" {
			t.Errorf("%s (%s, %s): %s\n%q", v.Name, v.RFC, v.Why, wrong, v.Raw[:min(len(v.Raw), 400)])
		}
	}
	return s
}

// judgeAnswer says what is wrong with what the client got.
func (v vector) judgeAnswer(reply string) string {
	in := bufio.NewReader(strings.NewReader(reply))
	res, err := http.ReadResponse(in, &http.Request{Method: v.Method})
	for err == nil && res.StatusCode < 200 && res.StatusCode != 101 { // interim answers may go on to the client (RFC 9110 section 15.2)
		res, err = http.ReadResponse(in, &http.Request{Method: v.Method})
	}
	if err != nil {
		if v.Expect == "accept" || v.Expect == "reject" {
			return fmt.Sprintf("the client got %q: %v", reply, err)
		}
		return ""
	}
	body, err := io.ReadAll(res.Body)
	if _, more := in.ReadByte(); err == nil && more == nil {
		return fmt.Sprintf("the client got several answers: %q", reply)
	}
	switch v.Expect {
	case "accept":
		want, problem := v.reference()
		if problem != nil || err != nil || res.StatusCode != v.Status || string(body) != want.body || !slices.Equal(answerLines(res.Header), want.lines) {
			return fmt.Sprintf("the client got %d %q %q (%v), want %d %q %q (%v)", res.StatusCode, answerLines(res.Header), body, err, v.Status, want.lines, want.body, problem)
		}
	case "reject":
		if err != nil || res.StatusCode != 502 {
			return fmt.Sprintf("it was taken for good: %q", reply)
		}
	case "truncated":
		if err == nil && res.StatusCode != 502 {
			return fmt.Sprintf("it looks complete: %q", reply)
		}
	}
	return ""
}

// reference reads the final answer of a valid vector with another parser.
func (v vector) reference() (m message, err error) {
	for in := bufio.NewReader(bytes.NewReader(v.Raw)); ; {
		res, err := http.ReadResponse(in, &http.Request{Method: v.Method})
		if err != nil {
			return m, err
		}
		if res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		for line := range strings.SplitSeq(string(v.Raw), "\r\n") { // the parser keeps no such line
			if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "connection") {
				for e := range strings.SplitSeq(value, ",") {
					res.Header.Del(strings.TrimSpace(e))
				}
			}
		}
		return message{body: string(body), lines: answerLines(res.Header)}, err
	}
}

// answerLines are the end-to-end lines of an answer, sorted by name, without those of the gateway.
func answerLines(h http.Header) (lines []string) {
	for name, values := range h {
		switch name {
		case "Date", "X-Apisix-Upstream-Status", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Transfer-Encoding", "Content-Length", "Proxy-Authenticate":
			continue
		}
		for _, value := range values {
			lines = append(lines, name+": "+value)
		}
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		return strings.Compare(strings.SplitN(a, ":", 2)[0], strings.SplitN(b, ":", 2)[0])
	})
	return lines
}

func TestResponseVectors(t *testing.T) {
	if list := readVectors[vector](t, "http1-vectors.jsonl"); list != nil {
		s := playAnswers(t, list)
		bad := s.all["must_reject"] + s.all["should_reject"] + s.all["may_accept"]
		refused := s.right["must_reject"] + s.right["should_reject"] + s.right["may_accept"]
		t.Logf("answers: %s; truncations signalled %d/%d, bad responses refused %d/%d", s, s.right["truncated"], s.all["truncated"], refused, bad)
	}
}
