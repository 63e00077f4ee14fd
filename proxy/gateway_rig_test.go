package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/proxy/accesslog"
	"headgate/proxy/fault"
	"headgate/proxy/leaktest"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
	"headgate/proxy/vars"
)

// patience bounds every wait of the tests; none of them depends on its length.
const patience = 30 * time.Second

// gateRig is a gateway on loopback with plugins that do what a test says.
type gateRig struct {
	*Server
	t        testing.TB
	live     *snapshot.Live
	compiler *snapshot.Compiler
	meter    *meter.Registry
	hub      *upstream.Hub
	log      *accesslog.Writer
	logPath  string
	addr     string
	listener *Listener

	// hooks of the plugin "probe"; nil does nothing.
	rewrite, access, send func(x *phase.Exchange) phase.Verdict
	response, done        func(x *phase.Exchange)
	receive               func(x *phase.Exchange, lines []phase.Field)
	// chunk is the plugin "chunker", wants what it says before; nil wants every body.
	chunk func(x *phase.Exchange, p []byte, last bool) ([]byte, error)
	wants func(x *phase.Exchange) bool
	// fake is where the plugin "fake" sends exchanges.
	fake fakeUpstream

	mu    sync.Mutex
	docs  map[string]string
	said  []string // to the operator
	dones int      // how often the done phase ran
}

// fence orders what a test and the plugins of its gateway write and read: the race detector does not see that bytes went from one to the
// other through a socket.
func (r *gateRig) fence() {
	r.mu.Lock()
	defer r.mu.Unlock()
}

type probe struct{ r *gateRig }

func (p probe) ask(hook *func(x *phase.Exchange) phase.Verdict, x *phase.Exchange) phase.Verdict {
	p.r.fence()
	defer p.r.fence()
	if *hook == nil {
		return phase.Continue
	}
	return (*hook)(x)
}

func (p probe) tell(hook *func(x *phase.Exchange), x *phase.Exchange) {
	p.r.fence()
	defer p.r.fence()
	if *hook != nil {
		(*hook)(x)
	}
}

func (p probe) Rewrite(x *phase.Exchange) phase.Verdict { return p.ask(&p.r.rewrite, x) }
func (p probe) Access(x *phase.Exchange) phase.Verdict  { return p.ask(&p.r.access, x) }
func (p probe) Send(x *phase.Exchange) phase.Verdict    { return p.ask(&p.r.send, x) }
func (p probe) Response(x *phase.Exchange)              { p.tell(&p.r.response, x) }

func (p probe) Receive(x *phase.Exchange, lines []phase.Field) {
	p.r.fence()
	defer p.r.fence()
	if p.r.receive != nil {
		p.r.receive(x, lines)
	}
}

func (p probe) Done(x *phase.Exchange) {
	defer func() {
		p.r.mu.Lock()
		p.r.dones++
		p.r.mu.Unlock()
	}()
	p.tell(&p.r.done, x)
}

type chunker struct{ r *gateRig }

func (c chunker) Chunk(x *phase.Exchange, p []byte, last bool) ([]byte, error) {
	c.r.fence()
	defer c.r.fence()
	return c.r.chunk(x, p, last)
}

func (c chunker) Wants(x *phase.Exchange) bool {
	c.r.fence()
	defer c.r.fence()
	return c.r.wants == nil || c.r.wants(x)
}

// fakeUpstream answers without a network.
type fakeUpstream func(x *phase.Exchange) *fault.Fault

func (f fakeUpstream) Name() string                           { return "fake" }
func (f fakeUpstream) Forward(x *phase.Exchange) *fault.Fault { return f(x) }

type diverter struct{ r *gateRig }

func (d diverter) Access(x *phase.Exchange) phase.Verdict {
	d.r.fence()
	x.Upstream = d.r.fake
	return phase.Continue
}

// defaults are options under which every test that needs no others runs.
func defaults() ServerOptions {
	return ServerOptions{
		Settings: phase.Settings{MaxHeldBody: 1 << 20},
		MaxHead:  32 << 10, MaxLines: 128, MaxBody: 1 << 20, BodyBuffer: 64 << 10,
		HeadTimeout: patience, BodyTimeout: patience, IdleTimeout: patience, WriteTimeout: patience,
		ResponseTrailers: []string{"*"},
	}
}

const testFormat = `$remote_addr "$request" $status $body_bytes_sent "$http_user_agent"`

// newGate starts a gateway with o. After the test it must have no connection and no pin left, and the process no goroutine and no
// descriptor more than before.
func newGate(t testing.TB, o ServerOptions) *gateRig {
	t.Helper()
	leaktest.Check(t, patience)
	r := &gateRig{t: t, live: &snapshot.Live{}, meter: meter.New(""), docs: map[string]string{}}
	hub := upstream.NewHub(upstream.NewResolver(time.Minute), nil)
	r.hub = hub
	kind := func(name string, priority int, instance any) phase.Kind {
		return phase.Kind{Name: name, Priority: priority, Schema: []byte(`{"type":"object"}`), Build: func([]byte, phase.Env) (any, error) { return instance, nil }}
	}
	var err error
	r.compiler, err = snapshot.NewCompiler(r.live, snapshot.Options{
		Kinds: []phase.Kind{kind("probe", 30, probe{r}), kind("chunker", 20, chunker{r}), kind("fake", 10, diverter{r}), zipper()}, Hub: hub, Meter: r.meter,
		Defaults: upstream.Defaults{Connect: patience, Send: patience, Read: patience, Pool: upstream.PoolOptions{Size: 8, IdleTimeout: patience, MaxRequests: 10_000}, MaxHead: 64 << 10, RetryBudget: 20},
		TLS:      snapshot.TLSOptions{Protocols: []string{"h2", "http/1.1"}, Tickets: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.logPath = filepath.Join(t.TempDir(), "access.log")
	if r.log, err = accesslog.Open(r.logPath, accesslog.Options{Shards: 1}); err != nil {
		t.Fatal(err)
	}
	format := o.Format
	if format == nil {
		if format, err = vars.Compile(testFormat); err != nil {
			t.Fatal(err)
		}
	}
	o.Meter, o.Log, o.Format, o.Settings.Version = r.meter, r.log, format, "test"
	o.Errorf = func(format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said = append(r.said, fmt.Sprintf(format, args...))
	}
	r.Server = NewServer(r.live, o)
	if r.listener, err = Listen(context.Background(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.addr = r.listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.Serve(r.listener) }()
	t.Cleanup(func() {
		_ = r.listener.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r.Drain(ctx, 0)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		// One that was accepted last may have come after the drain had found nobody; it is closed at once, by its own goroutine.
		r.eventually("no connection is left after the drain", func() bool {
			r.Server.mu.Lock()
			defer r.Server.mu.Unlock()
			return r.open.Load() == 0 && r.busy.Load() == 0 && len(r.crowd.conns) == 0
		})
		r.unpinned()
		r.compiler.Close()
		hub.Close()
		if err := r.log.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// route puts a route document in force.
func (r *gateRig) route(id, doc string) *gateRig {
	r.t.Helper()
	st, err := r.compiler.Stage(func(key string) []byte {
		if d, ok := r.docs[key]; ok {
			return []byte(d)
		}
		return nil
	}, []snapshot.Edit{{Key: "routes/" + id, Value: []byte(doc)}}, false)
	if err != nil {
		r.t.Fatal(err)
	}
	st.Commit(1)
	r.docs["routes/"+id] = doc
	return r
}

// to puts a route for every path to addr in force, with the given plugins.
func (r *gateRig) to(addr string, plugins ...string) *gateRig {
	r.t.Helper()
	doc := `{"uri":"/*","on_client_abort":"finish","plugins":` + pluginSet(plugins)
	if addr != "" {
		doc += `,"upstream":{"nodes":{"` + addr + `":1},"retries":0}`
	}
	return r.route("any", doc+"}")
}

func pluginSet(names []string) string {
	set := map[string]struct{}{}
	for _, n := range names {
		set[n] = struct{}{}
	}
	raw, _ := json.Marshal(set)
	return string(raw)
}

// unpinned waits until no exchange is left.
func (r *gateRig) unpinned() {
	r.t.Helper()
	if st, err := r.compiler.Stage(func(string) []byte { return nil }, nil, false); err != nil {
		r.t.Error(err)
	} else {
		st.Commit(1) // what was published before is now only alive for its readers
	}
	r.eventually("every exchange lets go of its snapshot", func() bool { return r.compiler.Collect(func(f func()) { f() }) == 0 })
}

func (r *gateRig) eventually(what string, holds func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("it did not come to this: %s", what)
		}
	}
}

func (r *gateRig) finished() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dones
}

// count returns what a counter shows.
func (r *gateRig) count(name string, labels ...meter.Label) float64 {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.meter.Write(&out); err != nil {
		r.t.Fatal(err)
	}
	series := name
	var pairs []string
	for _, l := range labels {
		pairs = append(pairs, l.Name+`="`+l.Value+`"`)
	}
	if len(pairs) > 0 {
		series += "{" + strings.Join(pairs, ",") + "}"
	}
	for line := range strings.SplitSeq(out.String(), "\n") {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

func (r *gateRig) faults(code string) float64 {
	side := fault.Client.String()
	for _, f := range fault.All() {
		if f.Code == code {
			side = f.Side.String()
		}
	}
	return r.count(meter.Faults, meter.Label{Name: "side", Value: side}, meter.Label{Name: "code", Value: code})
}

// lines waits for n lines of the access log.
func (r *gateRig) lines(n int) []string {
	r.t.Helper()
	var lines []string
	r.eventually(fmt.Sprintf("%d log lines", n), func() bool {
		if err := r.log.Flush(); err != nil {
			r.t.Fatal(err)
		}
		raw, err := os.ReadFile(r.logPath)
		if err != nil {
			r.t.Fatal(err)
		}
		lines = strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		return len(raw) > 0 && len(lines) >= n
	})
	if len(lines) != n {
		r.t.Errorf("%d log lines, want %d: %q", len(lines), n, lines)
	}
	return lines
}

// client is one connection to the gateway.
type client struct {
	net.Conn
	r  *gateRig
	t  testing.TB
	in *bufio.Reader
}

func (r *gateRig) dial(t testing.TB) *client {
	t.Helper()
	c, err := net.DialTimeout("tcp", r.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{c, r, t, bufio.NewReader(c)}
}

func (c *client) say(raw string) *client {
	c.t.Helper()
	c.r.fence()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// reply reads one answer to a request with the method, and its body; err is why it could not be read to its end.
func (c *client) reply(method string) (*http.Response, string, error) {
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	c.r.fence()
	return res, string(body), err
}

// want reads one answer and compares it.
func (c *client) want(method string, status int, body string) *http.Response {
	c.t.Helper()
	res, got, err := c.reply(method)
	if err != nil {
		c.t.Fatalf("answer: %v (%q)", err, got)
	}
	if res.StatusCode != status || body != "*" && got != body {
		c.t.Fatalf("answer %d %q, want %d %q", res.StatusCode, got, status, body)
	}
	return res
}

// closed says that the gateway has ended the connection, and nothing else came.
func (c *client) closed() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	if errors.Is(err, syscall.ECONNRESET) { // what was sent was not read to its end
		err = nil
	}
	if err != nil || len(rest) > 0 {
		c.t.Fatalf("expected the end of the connection, got %q and %v", rest, err)
	}
}

// once sends raw on a connection of its own, ends its side, and returns all that comes back.
func (r *gateRig) once(t testing.TB, raw string) string {
	r.t.Helper()
	c := r.dial(t)
	r.fence()
	defer r.fence()
	_, _ = io.WriteString(c, raw) // the gateway may have closed before the last byte
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	got, _ := io.ReadAll(c)
	_ = c.Close()
	return string(got)
}

const get = "GET /x HTTP/1.1\r\nHost: example.com\r\n\r\n"
