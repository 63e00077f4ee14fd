package proxycache

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// What may be kept, by the answer and by the request it was given to.
func TestWhatIsKept(t *testing.T) {
	const either, memory, disk = "memory disk", "memory", "disk"
	reply := func(status int, lines ...string) func(x *phase.Exchange) {
		return phasetest.Reply(status, "b", lines...)
	}
	for _, tt := range []struct {
		zones, conf, request string
		reply                func(x *phase.Exchange)
		first, second        string
	}{
		{either, "", "GET /", reply(200), "200 MISS", "200 HIT"},
		{either, "", "GET /", reply(301), "301 MISS", "301 HIT"},
		{either, "", "GET /", reply(404), "404 MISS", "404 HIT"},
		{either, "", "GET /", reply(500), "500 MISS", "500 MISS"},
		{either, `"cache_http_status":[500]`, "GET /", reply(500), "500 MISS", "500 HIT"},
		{either, `"cache_http_status":[206,304]`, "GET /", reply(206), "206 MISS", "206 MISS"},
		{either, `"cache_http_status":[206,304]`, "GET /", reply(304), "304 MISS", "304 MISS"},
		{either, "", "GET /", reply(200, "Content-Range: bytes 0-1/2"), "200 MISS", "200 MISS"},
		{memory, "", "POST /", reply(200), "200 MISS", "200 MISS"},
		{disk, "", "POST /", reply(200), "200 BYPASS", "200 BYPASS"},
		{either, `"cache_method":["POST"]`, "POST /", reply(200), "200 MISS", "200 HIT"},
		{memory, `"cache_method":["POST"]`, "GET /", reply(200), "200 MISS", "200 MISS"},
		{either, "", "GET /", reply(200, "Cache-Control: private"), "200 MISS", "200 MISS"},
		{either, "", "GET /", reply(200, `cache-control: max-age=60, Private="Set-Cookie"`), "200 MISS", "200 MISS"},
		{either, "", "GET /", reply(200, "Cache-Control: no-store"), "200 MISS", "200 MISS"},
		{either, "", "GET /", reply(200, "Cache-Control: max-age=9", "Cache-Control: foo, no-cache"), "200 MISS", "200 MISS"},
		{either, "", "GET /", reply(200, `Cache-Control: x=", private ,"`), "200 MISS", "200 HIT"},
		{either, "", "GET /", reply(200, "Set-Cookie: a=b"), "200 MISS", "200 MISS"},
		{either, `"cache_set_cookie":true`, "GET /", reply(200, "Set-Cookie: a=b"), "200 MISS", "200 HIT"},
		{either, "", "GET /", reply(200, "Vary: *"), "200 MISS", "200 MISS"},
		{either, "", "GET /", reply(200, "Vary: Accept, *"), "200 MISS", "200 MISS"},
		{either, "", "GET /|Authorization: Bearer x", reply(200), "200 MISS", "200 MISS"},
		{either, "", "GET /|Authorization: Bearer x", reply(200, "Cache-Control: max-age=60"), "200 MISS", "200 MISS"},
		{either, "", "GET /|Authorization: Bearer x", reply(200, "Cache-Control: public"), "200 MISS", "200 HIT"},
		{either, "", "GET /|Authorization: Bearer x", reply(200, "Cache-Control: s-maxage=60"), "200 MISS", "200 HIT"},
		{either, "", "GET /|Authorization: Bearer x", reply(200, "Cache-Control: must-revalidate"), "200 MISS", "200 HIT"},
		{either, `"no_cache":["$arg_n","$http_n"]`, "GET /?n=1", reply(200), "200 MISS", "200 MISS"},
		{either, `"no_cache":["$arg_n","$http_n"]`, "GET /?n=0", reply(200), "200 MISS", "200 HIT"},
		{either, `"no_cache":["$upstream_http_x_no"]`, "GET /", reply(200, "X-No: yes"), "200 MISS", "200 MISS"},
		{memory, `"cache_bypass":["$arg_n"]`, "GET /?n=1", reply(200), "200 BYPASS", "200 BYPASS"},
		{either, `"cache_bypass":["$arg_n"]`, "GET /?n=0", reply(200), "200 MISS", "200 HIT"},
		{either, `"cache_bypass":["yes"]`, "GET /", reply(200), "200 BYPASS", "200 BYPASS"},
		{either, "", "GET /|If-Match: x", reply(200), "200 BYPASS", "200 BYPASS"},
		{either, "", "GET /|Cache-Control: no-cache", reply(200), "200 MISS", "200 HIT"},
		{either, `"cache_control":true`, "GET /|Cache-Control: no-cache", reply(200, "Cache-Control: max-age=60"), "200 BYPASS", "200 BYPASS"},
		{either, `"cache_control":true`, "GET /|Cache-Control: no-store", reply(200, "Cache-Control: max-age=60"), "200 BYPASS", "200 BYPASS"},
		{either, `"cache_control":true`, "GET /", reply(200), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Cache-Control: max-age=60"), "200 MISS", "200 HIT"},
		{either, `"cache_control":true`, "GET /", reply(200, "Cache-Control: max-age=60, s-maxage=0"), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Cache-Control: max-age=60", "Age: 60"), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Cache-Control: max-age=60, max-age=0"), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Cache-Control: max-age=soon"), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Cache-Control: max-age"), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Expires: Fri, 02 Jan 2026 03:05:05 GMT"), "200 MISS", "200 HIT"},
		{either, `"cache_control":true`, "GET /", reply(200, "Expires: Friday, 02-Jan-26 03:05:05 GMT"), "200 MISS", "200 HIT"},
		{either, `"cache_control":true`, "GET /", reply(200, "Expires: Fri, 02 Jan 2026 03:04:05 GMT"), "200 MISS", "200 MISS"},
		{either, `"cache_control":true`, "GET /", reply(200, "Expires: 0"), "200 MISS", "200 MISS"},
		{memory, "", "GET /", reply(200, "Expires: 0", "Cache-Control: max-age=0"), "200 MISS", "200 HIT"},
		{disk, "", "GET /", reply(200, "Cache-Control: max-age=0"), "200 MISS", "200 MISS"},
		{disk, "", "GET /", reply(200, "Expires: 0"), "200 MISS", "200 MISS"},
	} {
		for _, zone := range strings.Fields(tt.zones) {
			r := newRig(t)
			p := r.plugin(zone, tt.conf)
			name := fmt.Sprintf("%s {%s} %s", zone, tt.conf, tt.request)
			for i, want := range []string{tt.first, tt.second} {
				if got := r.ask(p, tt.request, tt.reply); got != want+" b" {
					t.Errorf("%s: answer %d is %q, want %q", name, i+1, got, want+" b")
				}
			}
		}
	}
}

func TestTime(t *testing.T) {
	fresh := says("old", "Cache-Control: max-age=100", "Age: 10")
	for _, tt := range []struct {
		zone, conf string
		after      time.Duration
		request    string
		reply      func(x *phase.Exchange)
		want       string
	}{
		{"memory", `"cache_ttl":20`, 19 * time.Second, "GET /", says("old"), "200 HIT old"},
		{"memory", `"cache_ttl":20`, 20 * time.Second, "GET /", says("old"), "200 EXPIRED new"},
		{"memory", `"cache_ttl":20`, 20 * time.Second, "GET /", fresh, "200 EXPIRED new"},
		{"memory", "", 299 * time.Second, "GET /", says("old"), "200 HIT old"},
		{"memory", "", 300 * time.Second, "GET /", says("old"), "200 EXPIRED new"},
		{"disk", `"cache_ttl":20`, 9 * time.Second, "GET /", says("old"), "200 HIT old"},
		{"disk", `"cache_ttl":20`, 10 * time.Second, "GET /", says("old"), "200 EXPIRED new"},
		{"disk", "", 89 * time.Second, "GET /", fresh, "200 HIT old"},
		{"disk", "", 90 * time.Second, "GET /", fresh, "200 EXPIRED new"},
		{"memory", `"cache_control":true`, 89 * time.Second, "GET /", fresh, "200 HIT old"},
		{"memory", `"cache_control":true`, 90 * time.Second, "GET /", fresh, "200 EXPIRED new"},
		{"memory", `"cache_control":true`, 20 * time.Second, "GET /|Cache-Control: max-age=30", fresh, "200 HIT old"},
		{"memory", `"cache_control":true`, 21 * time.Second, "GET /|Cache-Control: max-age=30", fresh, "200 STALE new"},
		{"memory", `"cache_control":true`, 40 * time.Second, "GET /|Cache-Control: min-fresh=50", fresh, "200 HIT old"},
		{"memory", `"cache_control":true`, 41 * time.Second, "GET /|Cache-Control: min-fresh=50", fresh, "200 STALE new"},
		{"memory", "", 41 * time.Second, "GET /|Cache-Control: max-age=1, only-if-cached", fresh, "200 HIT old"},
		{"memory", `"cache_control":true`, 80 * time.Second, "GET /|Cache-Control: only-if-cached", fresh, "200 HIT old"},
		{"memory", `"cache_control":true`, 90 * time.Second, "GET /|Cache-Control: only-if-cached", fresh, "504 EXPIRED"},
		{"memory", `"cache_control":true`, 10 * time.Second, "GET /|Cache-Control: only-if-cached, max-age=1", fresh, "504 STALE"},
		{"memory", `"cache_control":true`, 0, "GET /never|Cache-Control: only-if-cached", fresh, "504 MISS"},
		// A clock that was set back makes nothing older or younger than it came.
		{"memory", `"cache_ttl":20`, -time.Hour, "GET /", says("old"), "200 HIT old"},
	} {
		r := newRig(t)
		p := r.plugin(tt.zone, tt.conf)
		r.ask(p, "GET /", tt.reply)
		r.clock = r.clock.Add(tt.after)
		got := r.ask(p, tt.request, says("new", "Cache-Control: max-age=100"))
		if status, _, _ := strings.Cut(tt.want, " "); status == "504" {
			got = strings.Join(strings.Fields(got)[:2], " ")
		}
		if got != tt.want {
			t.Errorf("%s {%s} %s after %s: %q, want %q", tt.zone, tt.conf, tt.request, tt.after, got, tt.want)
			continue
		}
		if strings.HasSuffix(tt.want, "EXPIRED new") { // the new one takes its place
			r.expect(p, "GET /", says("newer"), "200 HIT new")
			if n := r.cache.zones[tt.zone].number.Load(); n != 1 {
				t.Errorf("%d answers are kept", n)
			}
		}
	}
}

func TestVary(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		vary := func(body string) func(x *phase.Exchange) {
			return says(body, "Vary: Accept-Language, x-b", "vary: X-B,")
		}
		r.expect(p, "GET /|Accept-Language: de", vary("deutsch"), "200 MISS deutsch")
		r.expect(p, "GET /|Accept-Language: en", vary("english"), "200 MISS english")
		r.expect(p, "GET /|Accept-Language: de", vary("x"), "200 HIT deutsch")
		r.expect(p, "GET /|accept-language: en", vary("x"), "200 HIT english")
		r.expect(p, "GET /", vary("neither"), "200 MISS neither")
		r.expect(p, "GET /|Accept-Language: ", vary("empty"), "200 MISS empty")
		r.expect(p, "GET /|Accept-Language: de|X-B: ", vary("other"), "200 MISS other")
		// Two lines are one with a comma, and nothing else.
		r.expect(p, "GET /|Accept-Language: de, en", vary("both"), "200 MISS both")
		r.expect(p, "GET /|Accept-Language: de|Accept-Language: en", vary("x"), "200 HIT both")
		r.expect(p, "GET /|Accept-Language: d|Accept-Language: e, en", vary("wrong"), "200 MISS wrong")
		r.expect(p, "GET /", vary("x"), "200 HIT neither")
		if zone == "memory" {
			for i := range 2 * maxVariants {
				r.ask(p, fmt.Sprintf("GET /|Accept-Language: %d", i), vary("v"))
			}
			if n := r.cache.zones[zone].number.Load(); n != maxVariants {
				t.Errorf("%d variants are kept", n)
			}
		}
		many := ""
		for i := range maxVary + 1 {
			many += fmt.Sprintf("x%d,", i)
		}
		r.expect(p, "GET /many", says("1", "Vary: "+many), "200 MISS 1")
		r.expect(p, "GET /many", says("2"), "200 MISS 2")
	})
}

func TestMethods(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, `"cache_method":["GET","HEAD","POST"]`)
		body := func(text string) func(x *phase.Exchange) {
			return func(x *phase.Exchange) { x.Request.Body, x.Request.ContentType = []byte(text), []byte("text/plain") }
		}
		length := func(n int64) func(x *phase.Exchange) {
			return func(x *phase.Exchange) { phasetest.Reply(200, "")(x); x.Response.HeadLength = n }
		}
		head := func(path string, reply func(x *phase.Exchange)) string {
			x := r.exchange("HEAD " + path)
			return fmt.Sprintf("%s %d", r.run(x, p, reply), x.Response.HeadLength)
		}
		if got := head("/h", length(77)); got != "200 MISS 77" {
			t.Error(got)
		}
		if got := head("/h", nil); got != "200 HIT 77" {
			t.Error(got)
		}
		r.expect(p, "GET /h", says("hello"), "200 MISS hello") // an answer to HEAD has no body for it
		r.expect(p, "GET /h", nil, "200 HIT hello")
		if got := head("/h", nil); got != "200 HIT 5" {
			t.Error(got)
		}
		r.expect(p, "POST /h", says("p1"), "200 MISS p1", body("1"))
		r.expect(p, "POST /h", says("p2"), "200 MISS p2", body("2"))
		r.expect(p, "POST /h", nil, "200 HIT p1", body("1"))
		r.expect(p, "POST /h", says("p3"), "200 MISS p3", body("1"), func(x *phase.Exchange) { x.Request.ContentType = []byte("text/html") })
		r.expect(p, "GET /h", nil, "200 HIT hello")
		// Over TLS the answer may be another one, such as to a redirect.
		tls := func(x *phase.Exchange) { x.Request.TLS = true }
		r.expect(p, "GET /h", says("safe"), "200 MISS safe", tls)
		r.expect(p, "GET /h", nil, "200 HIT safe", tls)
		// A body has no meaning in a GET (RFC 9110 section 9.3.1), but for those whom it has one for.
		r.expect(p, "GET /h", says("with body"), "200 MISS with body", body("1"))
		r.expect(p, "GET /h", nil, "200 HIT with body", body("1"))
		r.expect(p, "GET /h", nil, "200 HIT hello")
		// Who wants to switch protocols asks the upstream.
		r.expect(p, "GET /h", says("switched"), "200 BYPASS switched", func(x *phase.Exchange) { x.Request.Upgrade = []byte("websocket") })
		// A method that a plugin has changed: the answer is none to the client's.
		r.expect(p, "GET /out", says(""), "200 MISS", func(x *phase.Exchange) { x.Request.OutMethod = []byte("HEAD") })
		r.expect(p, "GET /out", says("b"), "200 MISS b")
	})
}

func TestPurge(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		purge := func(path string, want string) {
			t.Helper()
			x := r.exchange("PURGE " + path)
			if got := phasetest.Run(x, &r.env, func(*phase.Exchange) { t.Error("the upstream was asked") }, p); !strings.HasPrefix(got, want) {
				t.Errorf("PURGE %s: %s", path, got)
			}
		}
		notFound := "404\nContent-Type: text/html; charset=utf-8\n\n<html>\r\n<head><title>404 Not Found</title>"
		purge("/a", notFound)
		purge("/a", notFound) // and that is not kept
		r.expect(p, "GET /a", says("1", "Vary: A"), "200 MISS 1")
		r.expect(p, "GET /a|A: 1", says("2", "Vary: A"), "200 MISS 2")
		r.expect(p, "GET /a", says("3"), "200 MISS 3", func(x *phase.Exchange) { x.Request.TLS = true })
		r.expect(p, "GET /b", says("b"), "200 MISS b")
		purge("/a", "200\n\n")
		purge("/a", notFound)
		r.expect(p, "GET /a", says("4"), "200 MISS 4")
		r.expect(p, "GET /a|A: 1", nil, "200 HIT 4")
		r.expect(p, "GET /b", nil, "200 HIT b")
		// What was under way when somebody purged is not kept.
		r.expect(p, "GET /c", func(x *phase.Exchange) {
			purge("/c", notFound)
			says("before")(x)
		}, "200 MISS before")
		r.expect(p, "GET /c", says("after"), "200 MISS after")
	})
}

// RFC 9111 section 4.4.
func TestChangesInvalidate(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		status := map[string]string{"memory": " MISS", "disk": " BYPASS"}[zone]
		r.expect(p, "GET /a", says("1"), "200 MISS 1")
		r.expect(p, "PUT /a", phasetest.Reply(500, ""), "500"+status)
		r.expect(p, "OPTIONS /a", phasetest.Reply(200, ""), "200"+status)
		r.expect(p, "DELETE /b", phasetest.Reply(204, ""), "204"+status)
		r.expect(p, "GET /a", nil, "200 HIT 1")
		r.expect(p, "PUT /a", phasetest.Reply(204, ""), "204"+status)
		r.expect(p, "GET /a", says("2"), "200 MISS 2")
	})
}

func TestConsumers(t *testing.T) {
	as := func(name string) func(x *phase.Exchange) {
		return func(x *phase.Exchange) { x.Consumer.Name = name }
	}
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		r.expect(p, "GET /a|Authorization: x", says("jack"), "200 MISS jack", as("jack"))
		r.expect(p, "GET /a|Authorization: x", says("jill"), "200 MISS jill", as("jill"))
		r.expect(p, "GET /a|Authorization: x", says("nobody"), "200 MISS nobody")
		r.expect(p, "GET /a|Authorization: x", nil, "200 HIT jack", as("jack"))
		r.expect(p, "GET /a|Authorization: x", nil, "200 HIT jill", as("jill"))
		r.expect(p, "GET /a|Authorization: y", says("jack's user"), "200 MISS jack's user", as("jack"))
		r.expect(p, "GET /a", says("jack without"), "200 MISS jack without", as("jack"))

		open := r.plugin(zone, `"consumer_isolation":false`)
		r.expect(open, "GET /b|Authorization: x", says("jack"), "200 MISS jack", as("jack"))
		r.expect(open, "GET /b|Authorization: y", nil, "200 HIT jack", as("jill"))
		r.expect(open, "GET /b", nil, "200 HIT jack")
		r.expect(open, "GET /b|Authorization: z", says("of z"), "200 MISS of z") // who that is was not checked
	})
}

// What the operator adds for the upstream makes an answer nobody's own; what the client has sent does, whatever becomes of it.
func TestAuthorizationOfTheOperator(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		p.Priority = 1085
		rewrite := phase.Instance{Plugin: adds{}}
		ask := func(request string) string {
			x := r.exchange(request)
			return strings.Split(phasetest.Run(x, &r.env, says("b"), p, rewrite), "\n")[1]
		}
		for _, want := range []string{"MISS", "HIT"} {
			if got := ask("GET /a"); got != "Apisix-Cache-Status: "+want && !strings.HasPrefix(got, "Age: ") {
				t.Errorf("%s, want %s", got, want)
			}
			if got := ask("GET /b|Authorization: mine"); got != "Apisix-Cache-Status: MISS" {
				t.Errorf("%s with Authorization", got)
			}
		}
		if n := r.cache.zones[zone].number.Load(); n != 1 {
			t.Errorf("%d answers are kept", n)
		}
	})
}

type adds struct{}

func (adds) Rewrite(x *phase.Exchange) phase.Verdict {
	x.Request.Header.Set([]byte("Authorization"), []byte("of the gateway"))
	return phase.Continue
}

// In a global rule the cache is asked before the first attempt, and not again before the next one.
func TestAttempts(t *testing.T) {
	r := newRig(t)
	r.env.OwnerKey = "global_rules/1"
	p := r.plugin("memory", "")
	if _, ok := p.Plugin.(phase.Accessor); ok {
		t.Fatal("it answers before the route's plugins have run")
	}
	sender := p.Plugin.(phase.Sender)
	for _, tt := range []struct {
		request string
		want    phase.Verdict
	}{{"GET /a", phase.Continue}, {"POST /a", phase.Continue}, {"OPTIONS /a", phase.Continue}, {"GET /a", phase.Stop}} {
		x := r.exchange(tt.request)
		x.Enter(nil, phase.NewChainOf([]phase.Instance{p}, nil, r.env.Slots))
		first := sender.Send(x)
		if first != tt.want {
			t.Errorf("%s: %v", tt.request, first)
		}
		if first == phase.Continue {
			if sender.Send(x) != phase.Continue {
				t.Errorf("%s: another attempt is answered", tt.request)
			}
			if tt.request == "GET /a" {
				says("b")(x)
				x.Receive(0)
			}
		}
		x.Finish(func(r any) { panic(r) })
	}
	z := r.cache.zones["memory"]
	if misses, hits := z.requests[miss].Value(), z.requests[hit].Value(); misses != 3 || hits != 1 {
		t.Errorf("%d misses, %d hits", misses, hits)
	}
}

// Routes do not share answers: the same path may mean something else to them.
func TestRoutes(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		r.expect(p, "GET /a", says("1"), "200 MISS 1")
		r.expect(p, "GET /a", says("2"), "200 MISS 2", func(x *phase.Exchange) { x.Route = &phase.Route{ID: "2"} })
		r.expect(p, "GET /a", says("3"), "200 MISS 3", func(x *phase.Exchange) { x.Route = nil })
		r.expect(p, "GET /a", nil, "200 HIT 1")
	})
}

func TestConditionalRequests(t *testing.T) {
	const date, later, earlier = "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:01 GMT", "Wed, 31 Dec 2025 23:59:59 GMT"
	for _, tt := range []struct{ lines, request, want string }{
		{`ETag: "a"`, `If-None-Match: "a"`, "304"},
		{`ETag: W/"a"`, `If-None-Match: "x,", "b", "a"`, "304"},
		{`ETag: "a"`, `If-None-Match: W/"a"`, "304"},
		{`ETag: "a"`, `If-None-Match: "b"|If-None-Match: "a"`, "304"},
		{`ETag: "a"`, `If-None-Match: "b"`, "200"},
		{`X: y`, `If-None-Match: *`, "304"},
		{`X: y`, `If-None-Match: "a"`, "200"},
		{"Last-Modified: " + date, "If-Modified-Since: " + date, "304"},
		{"Last-Modified: " + date, "If-Modified-Since: " + later, "304"},
		{"Last-Modified: " + date, "If-Modified-Since: " + earlier, "200"},
		{"Last-Modified: " + date, "If-Modified-Since: soon", "200"},
		{"Last-Modified: soon", "If-Modified-Since: " + date, "200"},
		{"X: y", "If-Modified-Since: " + date, "200"},
		{"Last-Modified: " + date, `If-None-Match: "b"|If-Modified-Since: ` + date, "200"}, // the tag alone counts
	} {
		both(t, func(t *testing.T, r *rig, zone string) {
			p := r.plugin(zone, "")
			r.ask(p, "GET /", says("body", "Content-Type: text/plain", "Cache-Control: max-age=9", tt.lines))
			x := r.exchange("GET /|" + tt.request)
			got := phasetest.Run(x, &r.env, nil, p)
			want := tt.want + "\nAge: 0\nApisix-Cache-Status: HIT\nCache-Control: max-age=9\n"
			if tt.want == "200" {
				want += "Content-Type: text/plain\n" + tt.lines + "\n\nbody"
			} else {
				want += tt.lines + "\n\n"
			}
			if got != want {
				t.Errorf("%s after %s: got\n%s\nwant\n%s", tt.request, tt.lines, got, want)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, `"hide_cache_headers":true,"cache_set_cookie":true`)
		reply := says("b", "Expires: Fri, 02 Jan 2026 03:05:05 GMT", "Cache-Control: max-age=60", "Apisix-Cache-Status: forged", "Set-Cookie: a=b",
			"X-RateLimit-Remaining: 3", "Age: 1", "X-Apisix-Upstream-Status: 7")
		first := phasetest.Run(r.exchange("GET /"), &r.env, reply, p)
		second := phasetest.Run(r.exchange("GET /"), &r.env, reply, p)
		want := "200\nAge: 1\nApisix-Cache-Status: MISS\nSet-Cookie: a=b\nX-Apisix-Upstream-Status: 7\nX-RateLimit-Remaining: 3\n\nb"
		if first != want {
			t.Errorf("got\n%s", first)
		}
		age := map[string]string{"memory": "0", "disk": "1"}[zone]
		if want = "200\nAge: " + age + "\nApisix-Cache-Status: HIT\nSet-Cookie: a=b\n\nb"; second != want {
			t.Errorf("got\n%s", second)
		}
	})
}

// A zone on disk takes in what was fetched past it.
func TestBypassRefreshesTheDisk(t *testing.T) {
	r := newRig(t)
	p := r.plugin("disk", `"cache_bypass":["$http_x"]`)
	r.expect(p, "GET /", says("1"), "200 MISS 1")
	r.expect(p, "GET /|X: 1", says("2"), "200 BYPASS 2")
	r.expect(p, "GET /", nil, "200 HIT 2")
	p = r.plugin("memory", `"cache_bypass":["$http_x"]`)
	r.expect(p, "GET /", says("1"), "200 MISS 1")
	r.expect(p, "GET /|X: 1", says("2"), "200 BYPASS 2")
	r.expect(p, "GET /", nil, "200 HIT 1")
}

func TestConfig(t *testing.T) {
	r := newRig(t)
	for conf, want := range map[string]string{
		`{"cache_zone":"none"}`:   "cache_zone none not found",
		`{}`:                      "cache_zone disk_cache_one not found",
		`{"cache_zone":"memory"}`: "invalid or empty cache_zone for cache_strategy: disk",
		`{"cache_zone":"disk","cache_strategy":"memory"}`:                              "invalid or empty cache_zone for cache_strategy: memory",
		`{"cache_zone":"disk","cache_key":["a","$request_method"]}`:                    "cache_key variable $request_method unsupported",
		`{"cache_zone":"disk"}`:                                                        "",
		`{"cache_zone":"memory","cache_strategy":"memory","cache_ttl":9e18,"_meta":1}`: "",
	} {
		got := ""
		if err := r.kind.Validate([]byte(conf)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", conf, got, want)
		}
	}
	if err := Kind(nil).Validate([]byte(`{}`)); err != nil {
		t.Errorf("the default zones: %v", err)
	}
}
