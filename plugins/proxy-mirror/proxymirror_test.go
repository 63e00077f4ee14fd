package proxymirror

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind(Options{}).Name, Kind(Options{}).Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	const pattern = `"^(http(s)?|grpc(s)?):\\/\\/([\\da-zA-Z.-]+|\\[[\\da-fA-F:]+\\])(:\\d+)?$"`
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{"host":"http://127.0.0.1"}`, ""},
		{`{"host":"https://[::1]:8443","path":"/m","path_concat_mode":"prefix","sample_ratio":0.00001}`, ""},
		{`{}`, `property "host" is required`},
		{`{"host":"127.0.0.1:80"}`, `property "host" validation failed: failed to match pattern ` + pattern + ` with "127.0.0.1:80"`},
		{`{"host":"http://127.0.0.1/x"}`, `property "host" validation failed: failed to match pattern ` + pattern + ` with "http://127.0.0.1/x"`},
		{`{"host":"http://127.0.0.1","sample_ratio":0}`, `property "sample_ratio" validation failed: expected 0 to be at least 1e-05`},
		{`{"host":"http://127.0.0.1","sample_ratio":1.1}`, `property "sample_ratio" validation failed: expected 1.1 to be at most 1`},
		{`{"host":"http://127.0.0.1","path":"x"}`, `property "path" validation failed: failed to match pattern "^/[^?&]+$" with "x"`},
		{`{"host":"http://127.0.0.1","path_concat_mode":"x"}`, `property "path_concat_mode" validation failed: matches none of the enum values`},
		{`{"host":"grpc://127.0.0.1"}`, errGRPC.Error()},
		{`{"host":"http://127.0.0.1:1234567"}`, errHost.Error()},
		{`{"host":"$env://MIRROR"}`, errHost.Error()},
		{`{"host":"http://127.0.0.1","path":"/a b"}`, errPath.Error()},
	} {
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if err == nil {
			err = Kind(Options{}).Validate([]byte(tt.conf))
		}
		if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// rig runs copies at once and waits for them.
type rig struct {
	phasetest.Env
	Options
	running sync.WaitGroup
	dropped atomic.Int64
}

func newRig() *rig {
	r := &rig{}
	r.Background = func(task func()) bool {
		r.running.Go(task)
		return true
	}
	r.Dropped = func() { r.dropped.Add(1) }
	return r
}

func (r *rig) build(t testing.TB, conf string) *plugin {
	t.Helper()
	p := r.Build(t, Kind(r.Options), conf).(*plugin)
	t.Cleanup(p.Close)
	return p
}

// send passes x through the send phase as many times as there are attempts.
func (r *rig) send(p *plugin, x *phase.Exchange, attempts int) {
	x.Enter(nil, phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, r.Slots))
	for range attempts {
		if x.Send() != phase.Continue {
			panic("stopped")
		}
	}
	r.running.Wait()
}

// server writes down what it gets: request line, Host, the other lines sorted, body.
func server(t testing.TB, start func(*httptest.Server)) (address string, seen func() []string, pool *x509.CertPool) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var lines []string
		for name, values := range r.Header {
			lines = append(lines, name+"="+strings.Join(values, "+"))
		}
		sort.Strings(lines)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", lines, " ", string(body)))
		fmt.Fprint(w, strings.Repeat("x", len(all)*10000))
	}))
	start(s)
	t.Cleanup(s.Close)
	pool = x509.NewCertPool()
	if s.Certificate() != nil {
		pool.AddCert(s.Certificate())
	}
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { all = nil }()
		return all
	}, pool
}

func TestCopies(t *testing.T) {
	address, seen, _ := server(t, (*httptest.Server).Start)
	for _, tt := range []struct {
		conf, request, body string
		change              func(q *phase.Request)
		want                string
	}{
		{``, "GET /a?x=1", "", nil, `GET /a?x=1 gateway.test [X-A=1] `},
		{``, "POST /a", "abc", nil, `POST /a gateway.test [Content-Length=3 X-A=1] abc`},
		{``, "PUT /a", "", nil, `PUT /a gateway.test [Content-Length=0 X-A=1] `},
		{``, "HEAD /a", "", nil, `HEAD /a gateway.test [X-A=1] `},
		{``, "GET /a", "", func(q *phase.Request) { q.Path = []byte("/a b\r\nc") }, `GET /a%20b%0D%0Ac gateway.test [X-A=1] `},
		{`,"path":"/mirror"`, "GET /a?x=1", "", nil, `GET /mirror?x=1 gateway.test [X-A=1] `},
		{`,"path":"/mirror","path_concat_mode":"prefix"`, "GET /a?x=1", "", nil, `GET /mirror/a?x=1 gateway.test [X-A=1] `},
		{``, "GET /a", "", func(q *phase.Request) {
			q.OutMethod, q.OutHost, q.OutTarget = []byte("DELETE"), []byte("up.test"), []byte("/rewritten")
			for _, name := range []string{"X-B", "Transfer-Encoding", "content-length", "Connection", "Host", "Expect"} {
				q.Header.Add([]byte(name), []byte("9"))
			}
		}, `DELETE /a up.test [X-A=1 X-B=9] `},
	} {
		r := newRig()
		p := r.build(t, `{"host":"`+address+`"`+tt.conf+`}`)
		for range 2 { // the second time on the connection of the first
			x := phasetest.Exchange(tt.request, "X-A: 1")
			if x.Request.Body = []byte(tt.body); tt.change != nil {
				tt.change(&x.Request)
			}
			r.send(p, x, 3)
			if got := fmt.Sprint(seen()); got != "["+tt.want+"]" {
				t.Errorf("%s %s\ngot  %s\nwant [%s]", tt.conf, tt.request, got, tt.want)
			}
		}
		if r.dropped.Load() != 0 || p.mirror.bytes.Load() != 0 || p.waiting.Load() != 0 {
			t.Errorf("%d dropped, %d bytes and %d copies left", r.dropped.Load(), p.mirror.bytes.Load(), p.waiting.Load())
		}
	}
}

func TestTLS(t *testing.T) {
	address, seen, pool := server(t, (*httptest.Server).StartTLS)
	r := newRig()
	r.send(r.build(t, `{"host":"`+address+`"}`), phasetest.Exchange("GET /a"), 1)
	if got := seen(); got != nil || r.dropped.Load() != 1 {
		t.Errorf("an unknown server got %v", got)
	}
	r.TLS = &tls.Config{RootCAs: pool}
	p := r.build(t, `{"host":"`+address+`"}`)
	for range 2 {
		if r.send(p, phasetest.Exchange("GET /a"), 1); len(seen()) != 1 {
			t.Error("no copy")
		}
	}
}

func TestSamples(t *testing.T) {
	r := newRig()
	n := 0
	r.Background = func(func()) bool { n++; return false }
	p := r.build(t, `{"host":"http://127.0.0.1:1","sample_ratio":0.2}`)
	for range 2000 {
		r.send(p, phasetest.Exchange("GET /a"), 1)
	}
	if n < 300 || n > 500 { // 5 standard deviations to each side
		t.Errorf("%d of 2000", n)
	}
}

// Whatever happens to a copy, it is counted and its room comes back.
func TestDrops(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		name, host string
		busy       bool
		change     func(q *phase.Request)
	}{
		{"nobody there", "http://127.0.0.1:1", false, nil},
		{"no worker", "http://" + silent.Addr().String(), true, nil},
		{"a line in a line", "http://" + silent.Addr().String(), false, func(q *phase.Request) { q.Header.Add([]byte("X"), []byte("a\r\nb: c")) }},
		{"two requests", "http://" + silent.Addr().String(), false, func(q *phase.Request) { q.Query = []byte("a HTTP/1.1\r\n\r\nGET /") }},
		{"too large", "http://" + silent.Addr().String(), false, func(q *phase.Request) { q.Body = make([]byte, maxBytes) }},
	} {
		r := newRig()
		if tt.busy {
			r.Background = func(func()) bool { return false }
		}
		p := r.build(t, `{"host":"`+tt.host+`"}`)
		x := phasetest.Exchange("GET /")
		if tt.change != nil {
			tt.change(&x.Request)
		}
		r.send(p, x, 2)
		if r.dropped.Load() != 1 || p.mirror.bytes.Load() != 0 || p.waiting.Load() != 0 {
			t.Errorf("%s: %d dropped, %d bytes and %d copies left", tt.name, r.dropped.Load(), p.mirror.bytes.Load(), p.waiting.Load())
		}
	}
}

// A server that does not answer holds up a bounded number of copies and no request; the end of the plugin is theirs, too.
func TestSilentServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := newRig()
	p := r.build(t, `{"host":"http://`+silent.Addr().String()+`"}`)
	chain := phase.NewChainOf([]phase.Instance{{Plugin: p}}, nil, r.Slots)
	for range maxWaiting + 10 {
		x := phasetest.Exchange("GET /")
		x.Enter(nil, chain)
		x.Send()
	}
	if r.dropped.Load() != 10 {
		t.Errorf("%d dropped", r.dropped.Load())
	}
	p.Close()
	r.running.Wait()
	if r.dropped.Load() != maxWaiting+10 || p.waiting.Load() != 0 {
		t.Errorf("%d dropped in the end, %d are left", r.dropped.Load(), p.waiting.Load())
	}
}

// A connection that the server has closed costs a copy that may be repeated a second try, and any other one itself.
func TestConnectionGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var requests atomic.Int64
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				requests.Add(1)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
			c.Close()
		}
	})
	r := newRig()
	p := r.build(t, `{"host":"http://`+l.Addr().String()+`"}`)
	for _, request := range []string{"GET /1", "GET /2", "POST /3"} {
		r.send(p, phasetest.Exchange(request), 1)
	}
	if n := requests.Load() + r.dropped.Load(); n != 3 || requests.Load() < 2 {
		t.Errorf("%d requests, %d dropped", requests.Load(), r.dropped.Load())
	}
	l.Close()
	serving.Wait()
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"host":"http://127.0.0.1:1","path":"/x","path_concat_mode":"prefix","sample_ratio":0.5}`, "/a", "q=1", "v")
	f.Add(`{"host":"https://[::1]"}`, "/a b", "", "\r\n")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, path, query, value string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil {
			return
		}
		c, err := read([]byte(conf))
		if err != nil {
			return
		}
		x := phasetest.Exchange("GET /")
		x.Request.Path, x.Request.Query = []byte(path), []byte(query)
		x.Request.Header.Add([]byte("X-A"), []byte(value))
		wire, ok := (&plugin{config: c}).append(nil, x)
		if !ok {
			return
		}
		lines := strings.Split(string(wire), "\r\n")
		if len(lines) != 5 || strings.Count(string(wire), "\n") != 4 || strings.Count(lines[0], " ") != 2 || lines[1] != "Host: gateway.test" {
			t.Errorf("%q is no single request", wire)
		}
	})
}
