package forwardauth

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/netpoll"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRefusals(t *testing.T) {
	s := compiled(t)
	for _, tt := range []struct{ conf, want string }{
		{`{"uri":"http://127.0.0.1:1/auth?x=1"}`, ""},
		{`{"uri":"https://h","request_method":"POST","request_headers":["a"],"extra_headers":{"X-A":"$uri"},"consumer_header":"X-C"}`, ""},
		{`{}`, `property "uri" is required`},
		{`{"uri":1}`, `property "uri" validation failed: wrong type: expected string, got number`},
		{`{"uri":"127.0.0.1:80"}`, errURI.Error()},
		{`{"uri":"ftp://h"}`, errURI.Error()},
		{`{"uri":"http:///x"}`, errURI.Error()},
		{`{"uri":"http://h","request_method":"PUT"}`, `property "request_method" validation failed: matches none of the enum values`},
		{`{"uri":"http://h","timeout":60001}`, `property "timeout" validation failed: expected 60001 to be at most 60000`},
		{`{"uri":"http://h","status_on_error":600}`, `property "status_on_error" validation failed: expected 600 to be at most 599`},
		{`{"uri":"http://h","keepalive_pool":0}`, `property "keepalive_pool" validation failed: expected 0 to be at least 1`},
		{`{"uri":"http://h","upstream_headers":["X A"]}`, `property "upstream_headers" validation failed: "X A" is not the name of a header line`},
		{`{"uri":"http://h","extra_headers":{}}`, `property "extra_headers" validation failed: expect object to have at least 1 properties`},
	} {
		doc, err := schema.DecodeJSON([]byte(tt.conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if err == nil {
			err = Kind().Validate([]byte(tt.conf))
		}
		if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// service decides by the path it is asked at and writes down what it is asked.
type service struct {
	*httptest.Server
	mu    sync.Mutex
	asked string
	peers map[string]bool // the other ends of its connections
}

func newService(t testing.TB, start func(*httptest.Server)) *service {
	t.Helper()
	s := &service{peers: map[string]bool{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var lines []string
		for name, values := range r.Header {
			lines = append(lines, name+"="+strings.Join(values, "+"))
		}
		sort.Strings(lines)
		s.mu.Lock()
		s.peers[r.RemoteAddr] = true
		s.asked = fmt.Sprint(r.Method, " ", r.RequestURI, " ", lines, " ", string(body))
		s.mu.Unlock()
		h := w.Header()
		switch r.URL.Path {
		case "/allow":
			h["X-User"] = []string{"u1", "u2"}
			h.Set("X-Consumer", r.Header.Get("Want"))
		case "/deny":
			h.Set("Location", "/login")
			h["Set-Cookie"] = []string{"a=1", "b=2"}
			h.Set("X-Secret", "s")
			w.WriteHeader(401)
			fmt.Fprint(w, "who are you?")
		case "/long":
			w.WriteHeader(403)
			w.Write(make([]byte, maxBody+1))
		case "/slow":
			<-r.Context().Done()
		case "/hang-up":
			panic(http.ErrAbortHandler)
		case "/head":
			h.Set("X-Long", strings.Repeat("x", 2*maxHead))
		case "/switch":
			w.WriteHeader(101)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

func (s *service) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.asked = "" }()
	return s.asked
}

func run(t testing.TB, conf string, x *phase.Exchange) string {
	t.Helper()
	var e phasetest.Env
	e.Principals = map[string]*phase.Principal{"jack": {Consumer: phase.Consumer{Name: "jack"}}}
	p := e.Build(t, Kind(), conf)
	defer p.(phase.Closer).Close()
	return phasetest.Run(x, &e, phasetest.Reply(200, "upstream"), phase.Instance{Plugin: p})
}

// What the service is asked.
func TestQuestions(t *testing.T) {
	s := newService(t, (*httptest.Server).Start)
	const forwarded = "X-Forwarded-For=127.0.0.1 X-Forwarded-Host=gateway.test X-Forwarded-Method="
	for _, tt := range []struct{ conf, request, lines, body, want string }{
		{``, "GET /a?x=1", "Authorization: x", "", "GET /allow?k=1 [" + forwarded + "GET X-Forwarded-Proto=http X-Forwarded-Uri=/a?x=1] "},
		{`,"request_headers":["authorization","X-Forwarded-For","X-None","User-Agent"]`, "PUT /a", "AUTHORIZATION: x|authorization: y|X-Forwarded-For: 6.6.6.6|User-Agent: curl", "abc",
			"GET /allow?k=1 [Authorization=x+y User-Agent=curl " + forwarded + "PUT X-Forwarded-Proto=http X-Forwarded-Uri=/a] "},
		{`,"request_method":"POST"`, "PUT /a", "Content-Encoding: br", "abc",
			"POST /allow?k=1 [Content-Encoding=br Content-Length=3 " + forwarded + "PUT X-Forwarded-Proto=http X-Forwarded-Uri=/a] abc"},
		{`,"extra_headers":{"X-Path":"$uri:$arg_x","x-forwarded-host":"other"}`, "GET /a?x=1", "", "",
			"GET /allow?k=1 [X-Forwarded-For=127.0.0.1 X-Forwarded-Host=other X-Forwarded-Method=GET X-Forwarded-Proto=http X-Forwarded-Uri=/a?x=1 X-Path=/a:1] "},
	} {
		var lines []string
		if tt.lines != "" {
			lines = strings.Split(tt.lines, "|")
		}
		x := phasetest.Exchange(tt.request, lines...)
		x.Request.Body = []byte(tt.body)
		if got := run(t, `{"uri":"`+s.URL+`/allow?k=1"`+tt.conf+`}`, x); got != "200\n\nupstream" {
			t.Errorf("%s: %q", tt.conf, got)
		}
		if got := s.took(); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
	x := phasetest.Exchange("GET /")
	x.Request.Path = []byte("/a\r\nb: c")
	if run(t, `{"uri":"`+s.URL+`/allow"}`, x); !strings.Contains(s.took(), "X-Forwarded-Uri=/a%0D%0Ab:%20c]") {
		t.Error("a path has become a line")
	}
}

func TestAnswers(t *testing.T) {
	s := newService(t, (*httptest.Server).Start)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	const passed, text, page = "200\n\nupstream", "Content-Type: text/plain; charset=utf-8\n", "Content-Type: text/html; charset=utf-8\n\n<html>"
	for _, tt := range []struct{ uri, conf, lines, want string }{
		{s.URL + "/allow", ``, "", passed},
		{s.URL + "/deny", ``, "", "401\n" + text + "\nwho are you?"},
		{s.URL + "/deny", `,"client_headers":["location","Set-Cookie","X-None"]`, "", "401\n" + text + "Location: /login\nSet-Cookie: a=1\nSet-Cookie: b=2\n\nwho are you?"},
		{s.URL + "/deny", `,"allow_degradation":true`, "", "401\n" + text + "\nwho are you?"},
		{s.URL + "/long", ``, "", "403\n" + page},
		{s.URL + "/slow", `,"timeout":20`, "", "403\n" + page},
		{s.URL + "/slow", `,"timeout":20,"allow_degradation":true`, "", passed},
		{s.URL + "/hang-up", `,"status_on_error":502`, "", "502\n" + page},
		{s.URL + "/head", ``, "", "403\n" + page},
		{s.URL + "/switch", `,"allow_degradation":true`, "", "403\n" + page},
		{"http://" + gone.Addr().String(), ``, "", "403\n" + page},
		{"http://" + gone.Addr().String(), `,"allow_degradation":true`, "", passed},
		{"http://" + gone.Addr().String(), `,"allow_degradation":true,"extra_headers":{"X-A":"$arg_x"}`, "", "403\n" + page},
		{s.URL + "/allow", `,"consumer_header":"X-Consumer"`, "", "403\n" + text + "\nconsumer header missing in auth response"},
		{s.URL + "/allow", `,"consumer_header":"X-Consumer","request_headers":["Want"]`, "Want: nobody", "403\n" + text + "\nconsumer not found"},
		{s.URL + "/allow", `,"consumer_header":"X-Consumer","request_headers":["Want"]`, "Want: jack", passed},
	} {
		var lines []string
		if tt.lines != "" {
			lines = []string{tt.lines}
		}
		x := phasetest.Exchange("GET /?x=a%0d%0ab", lines...)
		got := run(t, `{"uri":"`+tt.uri+`"`+tt.conf+`}`, x)
		if got != tt.want && (!strings.HasSuffix(tt.want, page) || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s%s\ngot  %q\nwant %q", tt.uri, tt.conf, got, tt.want)
		}
		if named := tt.lines == "Want: jack"; named != (x.Consumer.Name == "jack") {
			t.Errorf("%s%s: the consumer is %q", tt.uri, tt.conf, x.Consumer.Name)
		}
	}
}

// What the service says of the client comes from nowhere else.
func TestIdentity(t *testing.T) {
	s := newService(t, (*httptest.Server).Start)
	for _, tt := range []struct{ uri, conf, want string }{
		{s.URL + "/allow", `,"upstream_headers":["x-user","X-Role"]`, "Other: o|X-User: u1|X-User: u2"},
		{"http://127.0.0.1:1", `,"upstream_headers":["x-user","X-Role"],"allow_degradation":true`, "Other: o"},
		{s.URL + "/allow", ``, "Other: o|X-USER: admin|X_Role: admin|x_user: admin"},
	} {
		x := phasetest.Exchange("GET /", "X-USER: admin", "x_user: admin", "Other: o", "X_Role: admin")
		if got := run(t, `{"uri":"`+tt.uri+`"`+tt.conf+`}`, x); got != "200\n\nupstream" {
			t.Errorf("%q", got)
		}
		if got := strings.Join(phasetest.Lines(&x.Request.Header), "|"); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestTLSAndConnections(t *testing.T) {
	s := newService(t, (*httptest.Server).StartTLS)
	for conf, want := range map[string]string{``: "403", `,"ssl_verify":false`: "200"} {
		if got := run(t, `{"uri":"`+s.URL+`/allow"`+conf+`}`, phasetest.Exchange("GET /")); !strings.HasPrefix(got, want+"\n") {
			t.Errorf("%s: %q", conf, got)
		}
	}
	plain := newService(t, (*httptest.Server).Start)
	for conf, want := range map[string]int{``: 1, `,"keepalive":false`: 4} {
		plain.peers = map[string]bool{}
		var e phasetest.Env
		p := e.Build(t, Kind(), `{"uri":"`+plain.URL+`/allow"`+conf+`}`)
		for range 4 {
			phasetest.Run(phasetest.Exchange("GET /"), &e, nil, phase.Instance{Plugin: p})
		}
		p.(phase.Closer).Close()
		plain.took()
		if len(plain.peers) != want {
			t.Errorf("%s: %d connections for 4 requests", conf, len(plain.peers))
		}
	}
}

// A service that does not answer holds a request up for the timeout.
func TestTimeout(t *testing.T) {
	s := newService(t, (*httptest.Server).Start)
	start := time.Now()
	run(t, `{"uri":"`+s.URL+`/slow","timeout":30}`, phasetest.Exchange("GET /"))
	if took := time.Since(start); took < 30*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A client that leaves ends the question, whatever the plugin makes of a service that is away.
func TestClientLeaves(t *testing.T) {
	s := newService(t, (*httptest.Server).Start)
	for _, more := range []string{"", `,"allow_degradation":true`} {
		x := phasetest.Exchange("GET /")
		x.Presence = &netpoll.Presence{}
		asked := make(chan struct{})
		go func() {
			for s.took() == "" {
				time.Sleep(time.Millisecond)
			}
			x.Presence.Leave()
			close(asked)
		}()
		got := run(t, `{"uri":"`+s.URL+`/slow","timeout":60000`+more+`}`, x)
		<-asked
		if x.Fault != fault.ClientGone || x.Stage != phase.InPlugin || !strings.HasPrefix(got, "499") {
			t.Errorf("%s: %v in stage %d: %s", more, x.Fault, x.Stage, got)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"uri":"http://127.0.0.1:1/a","request_headers":["X-A"],"extra_headers":{"X-B":"$arg_x"},"upstream_headers":["X-A"]}`, "x=1", "v")
	f.Add(`{"uri":"https://h","request_method":"POST","timeout":1}`, "", "\r\n")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query, value string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		var e phasetest.Env
		p, err := Kind().Build([]byte(conf), &e)
		if err != nil {
			t.Fatal(err)
		}
		x := phasetest.Exchange("GET /?"+query, "X-A: "+value, "X_A: b")
		q, ok := p.(*plugin).question(t.Context(), x)
		if !ok {
			return
		}
		var text strings.Builder
		if err := q.Write(&text); err != nil {
			return
		}
		head, _, _ := strings.Cut(text.String(), "\r\n\r\n")
		if lines := strings.Count(head, "\n"); lines > len(q.Header)+3 {
			t.Errorf("%d lines of %d: %q", lines, len(q.Header), head)
		}
		p.(*plugin).forgetIdentity(x)
	})
}
