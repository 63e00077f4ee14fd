package trafficsplit

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/balancer"
	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// decider is what the plugin is in either form.
type decider interface {
	phase.Accessor
	phase.Explainer
}

// serve sends x through p as the gateway does, with an upstream that answers lines, and returns the branch.
func serve(x *phase.Exchange, e *phasetest.Env, p any, lines ...string) string {
	x.Upstream, x.Branch, x.Revision = own, own.Name(), 7
	phasetest.Run(x, e, phasetest.Reply(200, "ok", lines...), phase.Instance{Name: "traffic-split", Plugin: p})
	return x.Branch
}

const bySession = `{"sticky":{"key":"$http_x_session_id"},"decision_header":true,"rules":[
	{"weight":50,"upstream_id":"a"},{"weight":30,"upstream_id":"b"},{"weight":20,"upstream_id":"c"},{"weight":0,"upstream_id":"d"}]}`

func TestStickyKeepsClients(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), bySession)
	const keys = 5000
	count := map[string]int{}
	for k := range keys {
		request := func() string { return serve(phasetest.Exchange("GET /", fmt.Sprintf("X-Session-Id: s%d", k)), e, p) }
		branch := request()
		if again := request(); again != branch {
			t.Fatalf("s%d got %s, then %s", k, branch, again)
		}
		count[branch]++
	}
	for branch, share := range map[string]float64{"a": 0.5, "b": 0.3, "c": 0.2, "d": 0} {
		if off := math.Abs(float64(count[branch]) - keys*share); off > 5*math.Sqrt(keys*share*(1-share)) {
			t.Errorf("%s has %d of %d clients", branch, count[branch], keys)
		}
	}
}

// An edit moves the clients whose share moves, and the order of the branches is none of their business.
func TestStickyAcrossEdits(t *testing.T) {
	e := &phasetest.Env{}
	branches := func(conf string) (got []string) {
		p := e.Build(t, Kind(), conf)
		for k := range 2000 {
			got = append(got, serve(phasetest.Exchange("GET /", fmt.Sprintf("X-Session-Id: s%d", k)), e, p))
		}
		return got
	}
	before := branches(bySession)
	if after := branches(`{"sticky":{"key":"$http_x_session_id"},"rules":[{"weighted_upstreams":[
		{"weight":2,"upstream_id":"c"},{"weight":0,"upstream_id":"d"},{"weight":3,"upstream_id":"b"},{"weight":5,"upstream_id":"a"}]}]}`); !slices.Equal(before, after) {
		t.Error("another order, and the other form, moved clients")
	}
	after := branches(strings.Replace(bySession, `"weight":20`, `"weight":0`, 1))
	for k := range before {
		if before[k] != after[k] && before[k] != "c" || after[k] == "c" {
			t.Fatalf("s%d went from %s to %s when c went away", k, before[k], after[k])
		}
	}
}

// Requests without a key are spread exactly, and do not disturb the others.
func TestStickyFallsBackToTheSequence(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), bySession)
	count := map[string]int{}
	for k := range 100 {
		count[serve(phasetest.Exchange("GET /", "X-Session-Id: "), e, p)]++
		serve(phasetest.Exchange("GET /", fmt.Sprintf("X-Session-Id: s%d", k)), e, p)
	}
	if count["a"] != 50 || count["b"] != 30 || count["c"] != 20 {
		t.Errorf("got %v", count)
	}
}

func TestStickyKeys(t *testing.T) {
	for _, tt := range []struct {
		key  string
		same [2][]string // two requests that are of one client
		not  []string    // one of another
	}{
		{"$http_x_session_id", [2][]string{{"X-Session-Id: 1", "X-A: 1"}, {"x-session-id: 1"}}, []string{"X-Session-Id: 2"}},
		{"$cookie_x", [2][]string{{"Cookie: x=1"}, {"Cookie: a=b; x=1"}}, []string{"Cookie: x=2"}},
		{"$remote_addr-$http_user_agent", [2][]string{{"User-Agent: a"}, {"User-Agent: a", "X-A: 1"}}, []string{"User-Agent: b"}},
		{"u-$consumer_name", [2][]string{{"consumer: jack"}, {"consumer: jack"}}, []string{"consumer: jill"}},
	} {
		e := &phasetest.Env{}
		p := e.Build(t, Kind(), fmt.Sprintf(`{"sticky":{"key":%q},"decision_header":true,"rules":[{"weight":1,"name":"a"},{"weight":1,"name":"b"}]}`, tt.key))
		bucket := func(lines []string) phase.Bucket {
			x := phasetest.Exchange("GET /", lines...)
			if name, ok := x.Request.Header.Get("consumer"); ok {
				x.Consumer.Name = string(name)
			}
			serve(x, e, p)
			return x.Decision.Bucket
		}
		first, second, other := bucket(tt.same[0]), bucket(tt.same[1]), bucket(tt.not)
		if first != second || first == other || first.Kind != phase.KeyBucket {
			t.Errorf("%s: buckets %s, %s and %s", tt.key, first, second, other)
		}
	}
}

// A rule's own sticky wins over that of all.
func TestStickyOfARule(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), `{"sticky":{"key":"$arg_all"},"rules":[
		{"match":[{"vars":[["arg_r","==","1"]]}],"sticky":{"key":"$arg_own"},"weighted_upstreams":[{"weight":1,"name":"a"},{"weight":1,"name":"b"}]},
		{"weighted_upstreams":[{"weight":1,"name":"c"},{"weight":1,"name":"d"}]}]}`)
	for target, want := range map[string]string{"/?r=1&own=5": "0 k", "/?r=1&all=5": "0 p", "/?all=5": "1 k", "/?own=5": "1 p"} {
		x := phasetest.Exchange("GET " + target)
		serve(x, e, p)
		if got := fmt.Sprintf("%d %c", x.Decision.Rule, "-pk"[x.Decision.Bucket.Kind]); got != want {
			t.Errorf("%s: decided by %s, want %s", target, got, want)
		}
	}
}

const byCookie = `{"sticky":{"cookie":{"name":"hg","ttl":3600}},"decision_header":true,"rules":[{"weight":1,"name":"a"},{"weight":1,"name":"b"}]}`

func TestStickyCookie(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), byCookie)
	setCookie := regexp.MustCompile(`^hg=([0-9a-f]{16}); Path=/; Max-Age=3600; HttpOnly; SameSite=Lax$`)
	given := map[string]bool{}
	count := map[string]int{}
	for range 300 {
		first := phasetest.Exchange("GET /", "Cookie: other=1")
		branch := serve(first, e, p, "Set-Cookie: app=1")
		count[branch]++
		lines := phasetest.Lines(&first.Response.Header)
		if len(lines) != 3 || lines[0] != "Set-Cookie: app=1" {
			t.Fatalf("lines %q", lines)
		}
		m := setCookie.FindStringSubmatch(strings.TrimPrefix(lines[1], "Set-Cookie: "))
		if m == nil || given[m[1]] {
			t.Fatalf("%q is wrong, or was given before", lines[1])
		}
		given[m[1]] = true
		second := phasetest.Exchange("GET /", "Cookie: a=b; hg="+m[1])
		if again := serve(second, e, p); again != branch || second.Decision != first.Decision {
			t.Fatalf("%s, then %s (%+v, %+v)", branch, again, first.Decision, second.Decision)
		}
		if _, set := second.Response.Header.Get("Set-Cookie"); set {
			t.Fatal("a client that has the cookie gets another one")
		}
	}
	if count["a"] < 80 || count["b"] < 80 { // 8 standard deviations: the values are random
		t.Errorf("new clients went to %v", count)
	}
}

// What the gateway cannot have given counts as no cookie.
func TestStickyCookieIsChecked(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), byCookie)
	for _, value := range []string{"", "0", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg", `"0123456789abcdef"`,
		strings.Repeat("0", 4000), "0123456789abcde\xff"} {
		x := phasetest.Exchange("GET /", "Cookie: hg="+value)
		serve(x, e, p)
		if line, _ := x.Response.Header.Get("Set-Cookie"); !strings.HasPrefix(string(line), "hg=") || strings.Contains(string(line), "hg="+value+";") {
			t.Errorf("%.40q: the answer sets %q", value, line)
		}
	}
}

func TestStickyCookieIsSecureOverTLS(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), `{"sticky":{"cookie":{"name":"hg"}},"rules":[{"weight":1}]}`)
	for _, tt := range []struct {
		tls    bool
		line   string
		secure bool
	}{{false, "X-A: 1", false}, {true, "X-A: 1", true}, {false, "X-Forwarded-Proto: https", true}, {false, "X-Forwarded-Proto: http", false}} {
		x := phasetest.Exchange("GET /", tt.line)
		x.Request.TLS = tt.tls
		serve(x, e, p)
		line, _ := x.Response.Header.Get("Set-Cookie")
		if strings.HasSuffix(string(line), "; Secure") != tt.secure || strings.Contains(string(line), "Max-Age") {
			t.Errorf("%+v: %s", tt, line)
		}
	}
}

// A key beats the cookie, and nobody who has a key gets one.
func TestStickyKeyAndCookie(t *testing.T) {
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), `{"sticky":{"key":"$http_x_user","cookie":{"name":"hg"}},"rules":[{"weight":1,"name":"a"},{"weight":1,"name":"b"}]}`)
	with := phasetest.Exchange("GET /", "X-User: jack", "Cookie: hg=0123456789abcdef")
	without := phasetest.Exchange("GET /", "X-User: jack")
	serve(with, e, p)
	serve(without, e, p)
	if with.Decision != without.Decision {
		t.Errorf("the cookie counts: %+v, %+v", with.Decision, without.Decision)
	}
	if _, set := without.Response.Header.Get("Set-Cookie"); set {
		t.Error("who has a key gets a cookie")
	}
	cookie := phasetest.Exchange("GET /", "Cookie: hg=0123456789abcdef")
	serve(cookie, e, p)
	if cookie.Decision.Bucket == with.Decision.Bucket || cookie.Decision.Bucket.Kind != phase.KeyBucket {
		t.Errorf("the cookie alone: %+v", cookie.Decision)
	}
}

func TestDecisionHeader(t *testing.T) {
	e := &phasetest.Env{}
	header := func(p any, x *phase.Exchange) string {
		serve(x, e, p, "X-Headgate-Split: 1:2:3:forged", "x-headgate-split: again")
		var got []string
		for _, f := range x.Response.Header.Fields() {
			if phase.EqualName(f.Name, "x-headgate-split") {
				got = append(got, string(f.Value))
			}
		}
		return strings.Join(got, "|")
	}
	conf := `{"decision_header":true,"rules":[{"match":[{"vars":[["arg_v","==","1"]]}],"weighted_upstreams":[{"weight":3,"name":"a b"},{"weight":1,"name":"c"}]}]}`
	p := e.Build(t, Kind(), conf)
	var got []string
	for range 8 {
		got = append(got, header(p, phasetest.Exchange("GET /?v=1")))
	}
	if want := "7:0:0:a%20b 7:0:1:a%20b 7:0:2:c 7:0:3:a%20b"; strings.Join(got[:4], " ") != want || !slices.Equal(got[:4], got[4:]) {
		t.Errorf("got %q", got)
	}
	if got := header(p, phasetest.Exchange("GET /?v=2")); got != "" {
		t.Errorf("no rule has decided, and the answer says %s", got)
	}
	p = e.Build(t, Kind(), strings.Replace(conf, "true", "false", 1))
	if _, responds := p.(phase.Responder); responds {
		t.Error("a plugin with nothing to say takes part in the response phase")
	}
	p = e.Build(t, Kind(), `{"decision_header":true,"rules":[{"weighted_upstreams":[{"weight":0}]}]}`)
	if got := header(p, phasetest.Exchange("GET /")); got != "" {
		t.Errorf("all weights are 0, and the answer says %s", got)
	}
}

// What has been decided can be decided again: from the request where it has a key, from the bucket always.
func TestExplainRepeats(t *testing.T) {
	for name, conf := range map[string]string{"key": bySession, "cookie": byCookie,
		"sequence": `{"rules":[{"weight":70,"name":"a"},{"weight":30,"name":"b"},{"weight":1,"name":"c"}]}`} {
		e := &phasetest.Env{}
		p := e.Build(t, Kind(), conf).(decider)
		for k := range 300 {
			lines := []string{"X-A: 1"}
			switch {
			case name == "key" && k%3 > 0:
				lines = []string{fmt.Sprintf("X-Session-Id: s%d", k)}
			case name == "cookie" && k%3 > 0:
				lines = []string{fmt.Sprintf("Cookie: hg=%016x", k)}
			}
			x := phasetest.Exchange("GET /", lines...)
			branch := serve(x, e, p)
			for _, known := range []bool{true, false} {
				again := phasetest.Exchange("GET /", lines...)
				again.Upstream, again.Branch = own, own.Name()
				if again.Decision.Bucket = x.Decision.Bucket; known && lines[0] != "X-A: 1" {
					again.Decision.Bucket = phase.Bucket{}
				}
				c := p.Explain(again)
				if c.Next != branch || again.Branch != branch || c.Bucket != x.Decision.Bucket.String() || again.Decision != x.Decision || c.Open {
					t.Fatalf("%s: %+v was explained as %+v", name, x.Decision, c)
				}
			}
		}
	}
}

func TestExplainLeavesOpen(t *testing.T) {
	for _, tt := range []struct{ conf, bucket, why string }{
		{byCookie, "", "the client is not known yet: the value of the cookie hg that it will get decides"},
		{`{"rules":[{"weight":1}]}`, "k00000001", "it is not sticky, so that no key decides in it"},
	} {
		e := &phasetest.Env{}
		x := phasetest.Exchange("GET /")
		x.Upstream, x.Branch = own, own.Name()
		x.Decision.Bucket, _ = phase.ParseBucket(tt.bucket)
		c := e.Build(t, Kind(), tt.conf).(decider).Explain(x)
		if !c.Open || c.Next != "" || c.Bucket != "" || !strings.HasSuffix(c.Why, tt.why) || x.Upstream != own {
			t.Errorf("%s: %+v", tt.conf, c)
		}
	}
}

// TestExplainNobodyLeft: where a new client would go is open only while there is somewhere to go.
func TestExplainNobodyLeft(t *testing.T) {
	const cookie = `{"sticky":{"cookie":{"name":"hg"}},"rules":[{"weighted_upstreams":[{"name":"a","weight":%d,"upstream":{"nodes":{"127.0.0.1:1":1}}},{"name":"b","weight":0}]}]}`
	e := &phasetest.Env{}
	p := e.Build(t, Kind(), fmt.Sprintf(cookie, 1)).(decider)
	explain := func(p decider) *phase.Choice {
		x := phasetest.Exchange("GET /")
		x.Upstream, x.Branch = own, own.Name()
		return p.Explain(x)
	}
	if c := explain(p); !c.Open || c.Status != 0 {
		t.Errorf("all are open: %+v", c)
	}
	if _, err := e.Gates.Impose(balancer.Target{Scope: balancer.OfBranch, Owner: "routes/1", Name: "a"}, time.Minute, "test"); err != nil {
		t.Fatal(err)
	}
	if c := explain(p); c.Open || c.Status != 503 || c.Next != "" || !strings.HasSuffix(c.Why, "; all its branches are in quarantine") {
		t.Errorf("the only one that has a weight is shut: %+v", c)
	}
	none := (&phasetest.Env{}).Build(t, Kind(), fmt.Sprintf(cookie, 0)).(decider)
	if c := explain(none); c.Open || c.Status != 0 || c.Next != "" || !strings.HasSuffix(c.Why, "; all weights are 0, so the route's own upstream serves") {
		t.Errorf("nobody has a weight: %+v", c)
	}
}

func TestStickyRefusals(t *testing.T) {
	s, err := schema.Compile("traffic-split", Kind().Schema, resource.SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	const sticky = `property "sticky" validation failed: `
	for conf, want := range map[string]string{
		`{"key":"$uri"}`: "",
		`{"key":"$http_a-$remote_addr","fallback":"next"}`:         "",
		`{"cookie":{"name":"a"}}`:                                  "",
		`{"key":"$cookie_a","cookie":{"name":"a","ttl":34560000}}`: "",
		`{}`:                                    sticky + "object matches none of the required",
		`"x"`:                                   sticky + "wrong type: expected object, got string",
		`{"fallback":"next"}`:                   sticky + "object matches none of the required",
		`{"key":""}`:                            sticky + `property "key" validation failed: string too short, expected at least 1, got 0`,
		`{"key":5}`:                             sticky + `property "key" validation failed: wrong type: expected string, got number`,
		`{"key":"$uri","fallback":"hash"}`:      sticky + `property "fallback" validation failed: matches none of the enum values`,
		`{"key":"$uri","kye":1}`:                sticky + `additional properties forbidden, found kye`,
		`{"cookie":{}}`:                         sticky + `property "cookie" validation failed: property "name" is required`,
		`{"cookie":{"name":"a b"}}`:             sticky + `property "cookie" validation failed: property "name" validation failed: failed to match pattern`,
		`{"cookie":{"name":"a","ttl":0}}`:       sticky + `property "cookie" validation failed: property "ttl" validation failed: expected 0 to be at least 1`,
		`{"cookie":{"name":"a","ttl":1e9}}`:     sticky + `property "cookie" validation failed: property "ttl" validation failed: expected 1000000000 to be at most 34560000`,
		`{"cookie":{"name":"a","secure":true}}`: sticky + `property "cookie" validation failed: additional properties forbidden, found secure`,
		`{"key":"session"}`:                     "sticky: key has no variable in it, so that all requests would go to one branch",
		`{"key":"$http_a$sesion"}`:              "sticky: key: $sesion never has a value",
		`{"key":"${1}"}`:                        "sticky: key: $1 never has a value",
	} {
		for _, form := range []string{`{"sticky":%s,"rules":[{"weight":1}]}`, `{"rules":[{"sticky":%s,"weighted_upstreams":[{"weight":1}]}]}`} {
			got := refusal(t, s, fmt.Sprintf(form, conf))
			got = strings.TrimPrefix(got, `property "rules" validation failed: failed to validate item 1: `)
			if got != want && (want == "" || !strings.HasPrefix(got, want)) {
				t.Errorf("%s\ngot  %s\nwant %s", conf, got, want)
			}
		}
	}
	if got, want := refusal(t, s, `{"decision_header":1}`), `property "decision_header" validation failed: wrong type: expected boolean, got number`; got != want {
		t.Errorf("got %s", got)
	}
	if got := refusal(t, s, `{"rules":[{"weight":1,"sticky":{"key":"$uri"}}]}`); !strings.Contains(got, `item 1: unknown member "sticky"; a branch has`) {
		t.Errorf("a branch with sticky: %s", got)
	}
}

func TestStickyAllocatesNothing(t *testing.T) {
	for name, conf := range map[string]string{"key": bySession, "cookie": byCookie, "template": strings.Replace(bySession, "$http_x_session_id", "$remote_addr-$http_x_session_id", 1)} {
		for _, lines := range [][]string{{"X-Session-Id: 5", "Cookie: hg=0123456789abcdef"}, {"X-A: 1"}} {
			e := &phasetest.Env{}
			p := e.Build(t, Kind(), conf)
			chain := phase.NewChainOf([]phase.Instance{{Name: "traffic-split", Plugin: p}}, nil, e.Slots)
			from, x := phasetest.Exchange("GET /", lines...), &phase.Exchange{}
			var up phase.Upstream = own
			round := func() {
				phasetest.Refill(x, from, e)
				x.Upstream, x.Branch = up, "default"
				x.Enter(nil, chain)
				x.Access()
				x.Respond()
				if _, ok := x.Response.Header.Get("X-Headgate-Split"); !ok {
					t.Fatal("nothing was decided")
				}
			}
			round()
			if n := testing.AllocsPerRun(200, round); n != 0 {
				t.Errorf("%s, %s: %v allocations", name, lines[0], n)
			}
		}
	}
}

func FuzzStickyCookie(f *testing.F) {
	f.Add("hg=0123456789abcdef")
	f.Add("a=b; hg=")
	f.Add("hg=\"0123456789abcdef\"; hg=x")
	e := &phasetest.Env{}
	p := e.Build(f, Kind(), byCookie)
	f.Fuzz(func(t *testing.T, header string) {
		if strings.ContainsAny(header, "\r\n") {
			return
		}
		x := phasetest.Exchange("GET /")
		x.Request.Header.Add([]byte("Cookie"), []byte(header))
		branch := serve(x, e, p)
		line, set := x.Response.Header.Get("Set-Cookie")
		value, has := x.Cookie("hg", nil)
		if set == (has && validCookie(value)) || branch != "a" && branch != "b" {
			t.Errorf("%q: branch %s, sets %q", header, branch, line)
		}
	})
}

func BenchmarkSticky(b *testing.B) {
	e := &phasetest.Env{}
	p := e.Build(b, Kind(), bySession).(decider)
	from, x := phasetest.Exchange("GET /", "X-Session-Id: 5"), &phase.Exchange{}
	b.ReportAllocs()
	for b.Loop() {
		phasetest.Refill(x, from, e)
		p.Access(x)
	}
}
