package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"headgate/proxy/meter"
	"headgate/proxy/phase"
)

// amount is how many of something a test makes: env says another number than usual.
func amount(env string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil && n > 0 {
		return n
	}
	if raceEnabled {
		return usual / 4
	}
	return usual
}

// steady are clients that never stop asking, over connections that they keep.
type steady struct {
	dial func() (net.Conn, error)
	stop atomic.Bool
	done sync.WaitGroup

	answers atomic.Int64
	mu      sync.Mutex
	took    []time.Duration
	failed  []error
}

func (r *gateRig) steady(n int, dial func() (net.Conn, error)) *steady {
	s := &steady{dial: dial}
	for range n {
		s.done.Go(func() {
			if err := s.ask(); err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.failed = append(s.failed, err)
			}
		})
	}
	r.t.Cleanup(func() { // when the test has ended early
		s.stop.Store(true)
		s.done.Wait()
	})
	return s
}

func (s *steady) ask() error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for !s.stop.Load() {
		begun := time.Now()
		_ = c.SetDeadline(begun.Add(patience))
		if _, err := io.WriteString(c, get); err != nil {
			return err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || string(body) != "ok" {
			return fmt.Errorf("answer %d %q: %w", res.StatusCode, body, err)
		}
		s.answers.Add(1)
		s.mu.Lock()
		s.took = append(s.took, time.Since(begun))
		s.mu.Unlock()
	}
	return nil
}

// more waits for n more answers.
func (s *steady) more(r *gateRig, n int64) {
	r.t.Helper()
	before := s.answers.Load()
	r.eventually("clients to be served", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.answers.Load() >= before+n || len(s.failed) > 0
	})
}

// p99 is the 99th percentile of how long answers took since the last call.
func (s *steady) p99() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.took
	s.took = nil
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)*99/100]
}

// end stops them and returns how many did not get all that they asked for.
func (s *steady) end(t *testing.T) int {
	t.Helper()
	s.stop.Store(true)
	s.done.Wait()
	if len(s.failed) > 0 {
		t.Errorf("%d clients beside failed, the first: %v", len(s.failed), s.failed[0])
	}
	return len(s.failed)
}

func dialer(network, addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.DialTimeout(network, addr, patience) }
}

// crowdEnv makes the process of TestFault29Handshakes the clients: an address, how many of them, how many handshakes, and a file with the
// authority.
const crowdEnv = "HEADGATE_TEST_CROWD"

// TestFault29Handshakes: thousands come back at once. No more handshakes are under way than may be, all succeed, and whoever is connected is
// served on. The clients are a process of their own.
func TestFault29Handshakes(t *testing.T) {
	const limit = 64
	if os.Getenv(crowdEnv) != "" {
		handshakes(t)
		return
	}
	total := amount("HEADGATE_HANDSHAKES", 1000)
	crowd := min(total/2, 512)
	o := defaults()
	o.TLS.MaxHandshakes, o.TLS.HandshakeTimeout = limit, patience
	r := newSecureGate(t, o)
	r.to(newBackend(t, says(ok200)).addr)
	r.put("ssls/1", r.ca.ssl("a.test"))
	authority := filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(authority, []byte(r.ca.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	beside := r.steady(4, dialer("tcp", r.gateRig.addr))
	beside.more(r.gateRig, 1000)
	before := beside.p99()

	cmd := exec.Command(os.Args[0], "-test.run=^TestFault29Handshakes$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %s", crowdEnv, r.addr, crowd, total, authority))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	most, begun, ended := 0, time.Now(), make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	for err, over := error(nil), false; !over; {
		select {
		case err = <-ended:
			if over = true; err != nil {
				t.Fatalf("the clients: %v\n%s", err, &said)
			}
		case <-time.After(time.Millisecond):
			most = max(most, r.tls.gate.under())
		}
	}
	took := time.Since(begun)
	during := beside.p99()
	beside.more(r.gateRig, 10)
	lost := beside.end(t)
	r.eventually("no handshake is left", func() bool { return r.tls.gate.under() == 0 })
	// A client may be done before its last message has been read, and gone when it is.
	full, again := int(r.handshakes("full")), r.handshakes("failed")
	made := min(full+int(again), total)
	if made != total || most > limit {
		t.Errorf("%d of %d handshakes, at most %d at once", full, total, most)
	}
	t.Logf("F29: %d of %d handshakes of %d clients at once (%v begun again), at most %d of %d under way, %.0f/s; beside them %d of %d requests lost, p99 %v before and %v during",
		made, total, crowd, again, most, limit, float64(total)/took.Seconds(), lost, beside.answers.Load(), before.Round(time.Microsecond), during.Round(time.Microsecond))
}

// handshakes is what the crowd does.
func handshakes(t *testing.T) {
	var addr, authority string
	var crowd, total int
	if _, err := fmt.Sscan(os.Getenv(crowdEnv), &addr, &crowd, &total, &authority); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	var left atomic.Int64
	left.Store(int64(total))
	var all sync.WaitGroup
	for range crowd {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				for end := time.Now().Add(10 * patience); ; {
					c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: "a.test"})
					if err == nil {
						_ = c.Close()
						break
					}
					if time.Now().After(end) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

// TestFault30Panics: plugins panic in every phase, of whole and of streamed answers. Each costs its own request and nothing else.
func TestFault30Panics(t *testing.T) {
	const total = 1000
	r := newGate(t, defaults())
	up := newBackend(t, func(c net.Conn, m message) bool {
		answer := ok200
		if strings.HasPrefix(m.target, "/streamed") {
			answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + strings.Repeat("x", 0x20000) + "\r\n0\r\n\r\n"
		}
		_, err := io.WriteString(c, answer)
		return err == nil
	})
	asks := func(x *phase.Exchange, where string) {
		if at, _ := x.Request.Header.Get("X-Panic"); string(at) == where {
			panic("of a plugin, at " + where)
		}
	}
	verdict := func(where string) func(*phase.Exchange) phase.Verdict {
		return func(x *phase.Exchange) phase.Verdict { asks(x, where); return phase.Continue }
	}
	r.rewrite, r.access, r.send = verdict("rewrite"), verdict("access"), verdict("send")
	r.response = func(x *phase.Exchange) { asks(x, "response") }
	r.receive = func(x *phase.Exchange, _ []phase.Field) { asks(x, "receive") }
	r.done = func(x *phase.Exchange) { asks(x, "done") }
	r.chunk = func(x *phase.Exchange, p []byte, last bool) ([]byte, error) {
		asks(x, "chunk")
		if last {
			asks(x, "last")
		}
		return p, nil
	}
	doc := func(uri string) string {
		return `{"uri":"` + uri + `","plugins":` + pluginSet([]string{"probe", "chunker"}) + `,"upstream":{"nodes":{"` + up.addr + `":1}}}`
	}
	r.put("routes/whole", doc("/whole"), "routes/streamed", doc("/streamed"), "routes/x", doc("/x"))
	beside := r.steady(4, dialer("tcp", r.addr))
	beside.more(r, 100)

	where := []string{"rewrite", "access", "send", "receive", "response", "chunk", "last", "done"}
	failed, cut := 0, 0
	for i := range total {
		at, path := where[i%len(where)], "/whole"
		if i/len(where)%2 == 1 {
			path = "/streamed"
		}
		c, err := net.DialTimeout("tcp", r.addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		in := newClient(r, t, c)
		in.say("GET " + path + " HTTP/1.1\r\nHost: a\r\nX-Panic: " + at + "\r\n\r\n")
		res, body, err := in.reply("GET")
		switch {
		case at == "done": // the client has its answer by then
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%s at %s: %v, %v", path, at, res, err)
			}
			failed++
		case res == nil:
			t.Errorf("%s at %s: %v", path, at, err)
		case err == nil && res.StatusCode == 500:
			failed++
		case err != nil && res.StatusCode == 200 && path == "/streamed":
			cut++
		default:
			t.Errorf("%s at %s: %d %q, %v", path, at, res.StatusCode, body, err)
		}
		_ = c.Close()
	}
	beside.more(r, 100)
	lost := beside.end(t)
	r.eventually("all is as before", func() bool {
		open, idle := r.hub.Connections()
		return r.open.Load() == 0 && r.busy.Load() == 0 && open == idle
	})
	r.unpinned()
	counted := r.count(meter.Panics)
	if counted != total || failed+cut != total || cut == 0 {
		t.Errorf("%v counted, %d answered with an error, %d cut", counted, failed, cut)
	}
	t.Logf("F30: %d panics, %v counted, %d requests failed and %d answers cut; beside them %d of %d requests lost; connections and snapshots back to none",
		total, counted, failed, cut, lost, beside.answers.Load())
}

// TestFaultSlowClients (section 4.1, slowloris): thousands that send a byte of a head, half a body or no handshake at all are waited for beside
// others, who do not notice.
func TestFaultSlowClients(t *testing.T) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	total := min(amount("HEADGATE_SLOW_CLIENTS", 5000), int(min(files.Cur, 1<<20)-500)/2)
	r := newSecureGate(t, defaults())
	r.to(newBackend(t, says(ok200)).addr)
	r.put("ssls/1", r.ca.ssl("a.test"))
	beside := r.steady(4, dialer("tcp", r.gateRig.addr))
	beside.more(r.gateRig, 1000)
	before := beside.p99()
	kinds := []struct {
		addr, says string
	}{
		{r.gateRig.addr, "GET /slow HTTP/1.1\r\nHost: a\r\nX-Slow"},
		{r.gateRig.addr, "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf"},
		{r.gateRig.addr, ""},
		{r.addr, ""},
		{r.addr, "\x16\x03\x01\x02\x00\x01"},
	}
	clients := make([]net.Conn, 0, total)
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	for i := range total {
		k := kinds[i%len(kinds)]
		c, err := net.DialTimeout("tcp", k.addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
		if _, err := io.WriteString(c, k.says); err != nil {
			t.Fatal(err)
		}
	}
	// Those that have not shaken hands give way to each other.
	r.eventually("the others are there", func() bool { return r.Server.open.Load() >= int64(total/len(kinds)*3+4) })
	_ = beside.p99()
	beside.more(r.gateRig, 1000)
	during := beside.p99()
	secure, err := r.try(r.config("a.test"))
	if err != nil {
		t.Fatal(err)
	}
	newClient(r.gateRig, t, secure).say(get).want("GET", 200, "ok")
	_ = secure.Close()
	for i, c := range clients { // those whose turn it is drip on
		if says := kinds[i%len(kinds)].says; strings.HasPrefix(says, "GET") || strings.HasPrefix(says, "POST") {
			if _, err := io.WriteString(c, "x"); err != nil {
				t.Fatalf("client %d has been cut off: %v", i, err)
			}
		}
	}
	lost := beside.end(t)
	for _, c := range clients {
		_ = c.Close()
	}
	r.eventually("they are gone", func() bool { return r.Server.open.Load() == 0 && r.tls.gate.under() == 0 })
	t.Logf("slow clients: %d at once; beside them %d of %d requests lost, p99 %v before and %v during", total, lost, beside.answers.Load(),
		before.Round(time.Microsecond), during.Round(time.Microsecond))
}
