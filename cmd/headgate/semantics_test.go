package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/conf"
	"headgate/proxy/route"
)

// semantic is a request, and what may and may not become of it. Raw is a text of which each character is a byte.
type semantic struct {
	Name, Setup, Why string
	Bytes            []byte   `json:"raw_base64"`
	Raw              string   // in the place of Bytes
	With             []string `json:"upstream_must_contain"`
	Without          []string `json:"upstream_must_not_contain"`
	Unlogged         []string `json:"log_must_not_contain"`
	Reach            bool     `json:"reach_upstream"`
	Status           int      `json:"client_status"`
}

// semanticSetups are the configurations that semantics are played on.
var semanticSetups = map[string]string{
	"public":   publicRoute,
	"trusted":  "[gateway]\ntrusted_addresses = ['127.0.0.1']\n" + publicRoute,
	"anyone":   "[compat]\nforwarded_for_from_anyone = true\n" + publicRoute,
	"lenient":  "[gateway.strict]\ncontrol_bytes = false\n" + publicRoute,
	"dead":     strings.ReplaceAll(publicRoute, "{{upstream}}", "{{dead}}"),
	"key":      consumer + publicRoute + "[routes.plugins.key-auth]\n",
	"hidden":   consumer + publicRoute + "[routes.plugins.key-auth]\nhide_credentials = true\n",
	"guest":    consumer + publicRoute + "[routes.plugins.key-auth]\nanonymous_consumer = 'ann'\n",
	"basic":    consumer + publicRoute + "[routes.plugins.basic-auth]\n",
	"jwt":      consumer + publicRoute + "[routes.plugins.jwt-auth]\n",
	"id":       publicRoute + "[routes.plugins.request-id]\n",
	"limit":    publicRoute + "[routes.plugins.limit-count]\ncount = 3\ntime_window = 3600\nkey = 'remote_addr'\nrejected_code = 429\n",
	"local":    publicRoute + "[routes.plugins.ip-restriction]\nwhitelist = ['10.0.0.0/8']\n",
	"machine":  publicRoute + "[routes.plugins.ip-restriction]\nwhitelist = ['127.0.0.1']\n",
	"redirect": publicRoute + "[routes.plugins.redirect]\nuri = 'https://$host$uri'\nret_code = 301\n",
	"upgrade":  strings.Replace(publicRoute, "uri = '/*'", "uri = '/*'\nenable_websocket = true", 1),
	"hosts":    strings.Replace(publicRoute, "uri = '/*'", "uri = '/*'\nhosts = ['a.example']", 1) + "[[routes]]\nid = 'b'\nuri = '/*'\nhosts = ['b.example']\n[routes.plugins.mocking]\nresponse_status = 418\nresponse_example = 'b'\n",
	"admin": consumer + "[[routes]]\nid = 'admin'\nuris = ['/admin', '/admin/*']\non_client_abort = 'finish'\n[routes.upstream]\nnodes = { '{{upstream}}' = 1 }\n" +
		"[routes.plugins.key-auth]\n" + publicRoute,
}

const (
	publicRoute = "[[routes]]\nid = 'any'\nuri = '/*'\non_client_abort = 'finish'\n[routes.upstream]\nnodes = { '{{upstream}}' = 1 }\nretries = 0\n"
	consumer    = "[[consumers]]\nusername = 'ann'\n[consumers.plugins.key-auth]\nkey = 'right'\n[consumers.plugins.jwt-auth]\nkey = 'ann'\nsecret = 'a-secret-of-at-least-32-characters'\n" +
		"[consumers.plugins.basic-auth]\nusername = 'ann'\npassword = 'right'\n" +
		"[[consumers]]\nusername = 'bob'\n[consumers.plugins.key-auth]\nkey = 'good'\n[[consumers]]\nusername = 'eve'\n[consumers.plugins.key-auth]\nkey = 'k'\n"
	semanticLog = `"$request" "$request_uri" "$args" $status "$http_referer" "$http_user_agent" "$http_authorization" "$http_cookie" "$http_apikey" "$arg_apikey" "$upstream_uri"`
)

// semanticsSetup is the setup that a case of the shared data assumes, by the beginning of its name.
var semanticsSetup = []struct{ prefix, setup string }{
	{"hop/connection-strips-ours/X-Consumer-Username", "guest"}, {"hop/connection-strips-ours/X-Request-Id", "id"},
	{"hop/connection-names-end-to-end/", "key"}, {"trust/xff-append", "anyone"}, {"trust/xff-ratelimit", "limit"}, {"trust/real-ip-spoof", "machine"},
	{"identity/dup-apikey", "key"}, {"identity/dup-authorization", "jwt"}, {"identity/hide-credentials", "hidden"}, {"path/", "admin"}, {"upgrade/refused", "upgrade"},
	{"fwd/absolute-form", "hosts"}, {"log/injection", "lenient"}, {"log/secrets", "dead"}, {"inject/redirect", "redirect"}, {"", "public"},
}

// wireUpstream remembers every request as it came. It answers 200, to HEAD with a body that must not be there.
type wireUpstream struct {
	addr string
	mu   sync.Mutex
	got  []string // heads
}

func newWireUpstream(t *testing.T) *wireUpstream {
	t.Helper()
	u := &wireUpstream{}
	u.addr = rawServer(t, u.serve)
	return u
}

func (u *wireUpstream) serve(c net.Conn) {
	for in := bufio.NewReader(c); ; {
		var head strings.Builder
		length, chunked := 0, false
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			if line == "\r\n" {
				break
			}
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(line)), ":")
			switch name {
			case "content-length":
				length, _ = strconv.Atoi(strings.TrimSpace(value))
			case "transfer-encoding":
				chunked = true
			}
		}
		var err error
		if chunked {
			if _, err = io.Copy(io.Discard, httputil.NewChunkedReader(in)); err == nil {
				_, err = in.Discard(len("\r\n"))
			}
		} else {
			_, err = in.Discard(length)
		}
		if err != nil {
			return
		}
		u.mu.Lock()
		u.got = append(u.got, head.String())
		u.mu.Unlock()
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if strings.HasPrefix(head.String(), "HEAD ") {
			answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (u *wireUpstream) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	got := u.got
	u.got = nil
	return got
}

// semanticRig is a gateway with one setup.
type semanticRig struct {
	*gate
	up   *wireUpstream
	read int // of the access log
}

func newSemanticRig(t *testing.T, setup string) *semanticRig {
	t.Helper()
	text, ok := semanticSetups[setup]
	if !ok {
		t.Fatalf("there is no setup %q", setup)
	}
	up := newWireUpstream(t)
	c, err := conf.Parse(setup+".toml", []byte(strings.NewReplacer("{{upstream}}", up.addr, "{{dead}}", deadAddr(t)).Replace(text)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.AccessLog.Format = semanticLog
	c.Audit.Path = filepath.Join(t.TempDir(), "audit.log")
	return &semanticRig{gate: startGate(t, onLoopback(t, c)), up: up}
}

// ask sends raw from the address, ends its side, and returns all that comes back.
func (r *semanticRig) ask(from string, raw []byte) string {
	r.t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	_, _ = c.Write(raw) // the gateway may have closed before the last byte
	_ = c.(*net.TCPConn).CloseWrite()
	reply, _ := io.ReadAll(c)
	return string(reply)
}

// newLines waits until n more requests are logged and returns what the log says of them.
func (r *semanticRig) newLines(n int) (text string) {
	eventually(r.t, "the requests are logged", func() bool {
		text = string(r.readLog()[r.read:])
		return strings.Count(text, "\n") >= n
	})
	r.read += len(text)
	if got := strings.Count(text, "\n"); got != n {
		r.t.Errorf("%d lines for %d requests: %q", got, n, text)
	}
	return text
}

// judge says what is wrong with what became of v: what reached the upstream, the answer, and the lines in the log.
func (v semantic) judge(got []string, reply, logged string) string {
	if strings.HasPrefix(v.Name, "path/") && v.Status == 0 { // either an error, or a path that is outside for the upstream, too
		for _, head := range got {
			_, target, _ := strings.Cut(head, " ")
			target, _, _ = strings.Cut(target, " ")
			path, err := route.AppendNormalized(nil, []byte(target))
			if clean := string(path); err != nil || clean == "/admin" || strings.HasPrefix(clean, "/admin/") || strings.Contains(strings.ToLower(target), "%2e") {
				return target + " reached the upstream"
			}
		}
		return ""
	}
	if v.Reach != (len(got) > 0) && !(v.Name == "log/secrets" && v.Status == 502) { // whose upstream is dead
		return fmt.Sprintf("reached the upstream: %t, answer %q", len(got) > 0, reply)
	}
	if v.Status != 0 && v.Name != "trust/xff-ratelimit" && !strings.HasPrefix(reply, fmt.Sprintf("HTTP/1.1 %d ", v.Status)) && !strings.HasPrefix(reply, "HTTP/1.1 100 ") {
		return fmt.Sprintf("answer %q, want status %d", reply, v.Status)
	}
	for _, head := range got {
		low := strings.ToLower(head)
		for _, want := range v.With {
			if !strings.Contains(low, strings.ToLower(strings.ReplaceAll(want, "<peer>", "127.0.0.1"))) {
				return fmt.Sprintf("the upstream saw no %q: %q", want, head)
			}
		}
		for _, not := range v.Without {
			if v.Name == "trust/x-forwarded-port" { // "1" alone is in any address
				not = "X-Forwarded-Port: 1\r\n"
			}
			if strings.Contains(low, strings.ToLower(not)) {
				return fmt.Sprintf("the upstream saw %q: %q", not, head)
			}
		}
	}
	for _, not := range v.Unlogged {
		if strings.Contains(logged, not) {
			return fmt.Sprintf("%q was logged: %q", not, logged)
		}
	}
	return ""
}

// particular are checks of single cases beyond what their fields say.
var particular = map[string]func(r *semanticRig, v semantic, got []string, reply, logged string) string{
	"trust/xff-ratelimit": func(r *semanticRig, v semantic, _ []string, _, _ string) string {
		for i := range 4 { // the first has been counted
			reply := r.ask("127.0.0.1", bytes.Replace(v.Bytes, []byte("<random>"), fmt.Appendf(nil, "198.51.100.%d", i), 1))
			r.newLines(1)
			if limited := strings.HasPrefix(reply, "HTTP/1.1 429 "); limited != (i >= 2) {
				return fmt.Sprintf("request %d: %.20q", i+2, reply)
			}
		}
		r.up.take()
		return ""
	},
	"upgrade/refused-then-request": func(_ *semanticRig, _ semantic, got []string, reply, _ string) string {
		if len(got) != 2 || !strings.HasPrefix(got[1], "GET /smuggled ") || strings.Count(reply, "HTTP/1.1 200 ") != 2 {
			return fmt.Sprintf("the upstream saw %q, answers %q", got, reply)
		}
		return ""
	},
	"fwd/expect": func(_ *semanticRig, _ semantic, got []string, reply, _ string) string {
		if strings.Count(reply, " 100 ") > 1 || strings.Contains(strings.ToLower(got[0]), "expect:") {
			return fmt.Sprintf("the upstream saw %q, answers %q", got, reply)
		}
		return ""
	},
	"fwd/head": func(r *semanticRig, v semantic, _ []string, reply, _ string) string {
		for _, ask := range []string{string(v.Bytes), "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"} {
			again := r.ask("127.0.0.1", []byte(ask))
			r.newLines(1)
			if strings.Contains(again+reply, "stray") || !strings.HasPrefix(again, "HTTP/1.1 200 ") || ask[0] == 'G' && !strings.HasSuffix(again, "\r\n\r\nok") {
				return fmt.Sprintf("the answers are %q and %q", reply, again)
			}
		}
		r.up.take()
		return ""
	},
	"log/injection": func(_ *semanticRig, _ semantic, _ []string, _, logged string) string {
		if strings.ContainsFunc(strings.TrimSuffix(logged, "\n"), func(c rune) bool { return c < ' ' }) || strings.Count(logged, `"`) != 20 {
			return fmt.Sprintf("the log says %q", logged)
		}
		return ""
	},
	"log/secrets": func(r *semanticRig, _ semantic, _ []string, reply, logged string) string {
		shown := reply + logged + r.logged.String() + r.send("GET", "http://"+r.process.addr("metrics")+"/apisix/prometheus/metrics", "").body
		for _, view := range []string{"/status", "/v1/routes", "/v1/healthcheck", "/v1/breakers"} {
			shown += r.send("GET", "http://"+r.process.addr("control")+view, "").body
		}
		shown += r.admin("GET", "/routes", "").body
		if audited, err := os.ReadFile(r.conf.Load().Audit.Path); err == nil {
			shown += string(audited)
		}
		if i := strings.Index(shown, "SECRET123"); i >= 0 {
			return fmt.Sprintf("it shows: %q", shown[max(0, i-60):i+9])
		}
		return ""
	},
	"inject/redirect-crlf": redirectsHome,
	"redirect":             redirectsHome,
	"redirect to a host":   redirectsHome,
}

// redirectsHome: one Location, to the host that was asked, and nothing that the client has made a line of.
func redirectsHome(_ *semanticRig, _ semantic, _ []string, reply, _ string) string {
	head, _, _ := strings.Cut(reply, "\r\n\r\n")
	home := 0
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch strings.ToLower(name) {
		case "set-cookie", "x-forged":
			return fmt.Sprintf("the answer is %q", reply)
		case "location":
			home++
			if !strings.HasPrefix(value, "https://example.com/") && !strings.HasPrefix(value, "https://shop.example/") || strings.ContainsAny(value, "\r\n") {
				return "the client goes to " + value
			}
		}
	}
	if home != 1 {
		return fmt.Sprintf("the answer is %q", reply)
	}
	return ""
}

// playSemantics plays every case and returns how many came out right.
func playSemantics(t *testing.T, list []semantic) (right int) {
	rigs := map[string]*semanticRig{}
	for _, v := range list {
		if rigs[v.Setup] == nil {
			rigs[v.Setup] = newSemanticRig(t, v.Setup)
		}
		r := rigs[v.Setup]
		from := "127.0.0.1"
		if v.Name == "trust/real-ip-spoof" { // the peer is somebody else than who may come
			from = "127.0.0.2"
		}
		reply := r.ask(from, v.Bytes)
		got := r.up.take()
		logged := r.newLines(max(1, strings.Count(reply, "HTTP/1.1 ")-strings.Count(reply, "HTTP/1.1 100 ")))
		wrong := v.judge(got, reply, logged)
		if check := particular[v.Name]; check != nil && wrong == "" {
			wrong = check(r, v, got, reply, logged)
		}
		if wrong != "" {
			t.Errorf("%s (%s): %s", v.Name, v.Why, wrong)
		} else {
			right++
		}
	}
	return right
}

func readSemantics(t *testing.T, file string) (list []semantic) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := json.NewDecoder(f); ; {
		var v semantic
		if err := lines.Decode(&v); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		for _, c := range v.Raw {
			v.Bytes = append(v.Bytes, byte(c))
		}
		list = append(list, v)
	}
}

// TestSemantics plays the project's own cases of what must and must not reach the upstream, the client and the log.
func TestSemantics(t *testing.T) {
	list := readSemantics(t, "testdata/semantics.jsonl")
	t.Logf("semantics of our own: %d/%d", playSemantics(t, list), len(list))
	if len(list) < 40 {
		t.Errorf("%d cases", len(list))
	}
}

// TestSharedSemantics plays those of the shared test data, where it is.
func TestSharedSemantics(t *testing.T) {
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	file := filepath.Join(dir, "testdata", "proxy-semantics.jsonl")
	if _, err := os.Stat(file); err != nil {
		t.Logf("proxy-semantics.jsonl is not here (HEADGATE_SHARED names its folder): only the project's own cases have run")
		return
	}
	list := readSemantics(t, file)
	for i := range list {
		v := &list[i]
		v.Setup = semanticsSetup[slices.IndexFunc(semanticsSetup, func(s struct{ prefix, setup string }) bool { return strings.HasPrefix(v.Name, s.prefix) })].setup
	}
	t.Logf("semantics: %d/%d", playSemantics(t, list), len(list))
}
