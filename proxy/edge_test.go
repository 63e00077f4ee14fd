package proxy

import (
	"bytes"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/route"
)

// TestRefusals: what is refused is told so with a page, and ends the connection although the client would go on.
func TestRefusals(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	lines := func(n int) string { return strings.Repeat("A: b\r\n", n) }
	const host = "Host: a\r\n"
	tests := []struct {
		name, raw string
		status    int
		code      string
	}{
		{"name with a space", "GET / HTTP/1.1\r\n" + host + "A B: c\r\n\r\n", 400, "bad_request"},
		{"space before the colon", "GET / HTTP/1.1\r\n" + host + "A : c\r\n\r\n", 400, "bad_request"},
		{"folded line", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c: d\r\n\r\n", 400, "bad_request"},
		{"folded first line", "GET / HTTP/1.1\r\n A: b\r\n" + host + "\r\n", 400, "bad_request"},
		{"bare LF", "GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n", 400, "bad_request"},
		{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", 400, "bad_request"},
		{"CR in a value", "GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n\r\n", 400, "bad_request"},
		{"no colon", "GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", 400, "bad_request"},
		{"no name", "GET / HTTP/1.1\r\n" + host + ": a\r\n\r\n", 400, "bad_request"},
		{"no header", "GET / HTTP/1.1\r\n\r\n", 400, "bad_request"},
		{"two hosts", "GET / HTTP/1.1\r\n" + host + "HOST: a\r\n\r\n", 400, "bad_request"}, // fasthttp sees it first
		{"user in the host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "bad_host"},
		{"port out of range", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400, "bad_host"},
		{"port of letters", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, "bad_request"},
		{"two in one host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "bad_request"},
		{"user in the target", "GET http://u@a/ HTTP/1.1\r\n" + host + "\r\n", 400, "bad_host"},
		{"target without authority", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"another scheme", "GET ftp://a/x HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"fragment behind the authority", "GET http://a#b HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"length and coding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_framing"},
		{"length twice", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, "bad_request"},
		{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\na", 400, "bad_request"},
		{"identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 400, "bad_framing"},
		{"two codings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		{"chunks in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		{"end of a chunk", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\naX\r\n0\r\n\r\n", 400, "bad_framing"},
		{"HTTP/1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", 505, "bad_version"},
		{"HTTP/0.9", "GET / HTTP/0.9\r\n" + host + "\r\n", 505, "bad_version"},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method_not_allowed"},
		{"TRACE", "TRACE / HTTP/1.1\r\n" + host + "\r\n", 405, "method_not_allowed"},
		{"method in small letters", "get / HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request"},
		{"endless method", strings.Repeat("A", maxMethod+1) + " / HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request"},
		{"star with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request"},
		{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"NUL escaped", "GET /%00 HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"half an escape", "GET /%4 HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"above the root", "GET /../a HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"above the root, escaped", "GET /%2e%2e%2fa HTTP/1.1\r\n" + host + "\r\n", 400, "bad_path"},
		{"too many lines", "GET / HTTP/1.1\r\n" + host + lines(128) + "\r\n", 431, "head_too_large"},
		{"head too long", "GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("a", 33<<10) + "\r\n\r\n", 431, "head_too_large"},
		{"target too long", "GET /" + strings.Repeat("a", 33<<10) + " HTTP/1.1\r\n" + host + "\r\n", 431, "head_too_large"},
		{"body too long", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1048577\r\n\r\n", 413, "body_too_large"},
		{"chunks too long", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n100001\r\n", 413, "body_too_large"},
		{"unknown expectation", "POST / HTTP/1.1\r\n" + host + "Expect: miracles\r\nContent-Length: 0\r\n\r\n", 417, "expectation_failed"},
		{"five Connection lines", "GET / HTTP/1.1\r\n" + host + strings.Repeat("Connection: a\r\n", 5) + "\r\n", 400, "bad_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := r.faults(tt.code)
			c := r.dial(t)
			_, _ = c.Write([]byte(tt.raw))
			res, body, err := c.reply("GET")
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status || !res.Close {
				t.Errorf("answer %d, closes %t; want %d and the end", res.StatusCode, res.Close, tt.status)
			}
			if page := phase.PageTitle(tt.status); page != "" && !strings.Contains(body, "<h1>"+strconv.Itoa(tt.status)+" "+page+"</h1>") {
				t.Errorf("the page is %q", body)
			}
			c.closed()
			if got := r.faults(tt.code) - before; got != 1 {
				t.Errorf("%s was counted %v times", tt.code, got)
			}
		})
	}
	if got := up.take(); len(got) > 0 {
		t.Errorf("%d of them reached the upstream: %q", len(got), got)
	}
	if lines := r.lines(len(tests)); !slices.ContainsFunc(lines, func(l string) bool {
		return strings.Contains(l, `"GET /a HTTP`) || strings.Contains(l, `"GET /%00 HTTP/1.1" 400 `)
	}) {
		t.Errorf("the log does not tell what was refused: %q", lines)
	}
}

// TestNginxLimits: heads that nginx would refuse with the buffers that it has by default, and those that it would just take.
func TestNginxLimits(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.MaxHead, o.MaxLines, o.NginxHeadLimits = 32<<10, 20, true
	r := newGate(t, o).to(up.addr)
	const host = "Host: a\r\n"
	pad := func(n int, before, after string) string {
		return before + strings.Repeat("a", n-len(before)-len(after)) + after
	}
	for _, tt := range []struct {
		name, raw string
		status    int
		page      string
	}{
		{"longest request line", pad(8<<10, "GET /", " HTTP/1.1\r\n") + host + "\r\n", 200, ""},
		{"longer request line", pad(8<<10+1, "GET /", " HTTP/1.1\r\n") + host + "\r\n", 414, "<title>414 Request-URI Too Large</title>"},
		{"request line beyond the head", pad(40<<10, "GET /", " HTTP/1.1\r\n") + host + "\r\n", 414, "<title>414 Request-URI Too Large</title>"},
		{"longest line", "GET / HTTP/1.1\r\n" + host + pad(8<<10, "A: ", "\r\n") + "\r\n", 200, ""},
		{"longer line", "GET / HTTP/1.1\r\n" + host + pad(8<<10+1, "A: ", "\r\n") + "\r\n", 400, "<title>400 Request Header Or Cookie Too Large</title>"},
		{"both too long", pad(9<<10, "GET /", " HTTP/1.1\r\n") + host + pad(9<<10, "A: ", "\r\n") + "\r\n", 414, "<h1>414 Request-URI Too Large</h1>"},
		{"lines beyond the head", "GET / HTTP/1.1\r\n" + host + strings.Repeat(pad(7<<10, "A: ", "\r\n"), 5) + "\r\n", 400, "<title>400 Request Header Or Cookie Too Large</title>"},
		{"too many lines", "GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 20) + "\r\n", 400, "<title>400 Request Header Or Cookie Too Large</title>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := r.dial(t)
			_, _ = c.Write([]byte(tt.raw))
			res, body, err := c.reply("GET")
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status || !strings.Contains(body, tt.page) || res.Close != (tt.status != 200) {
				t.Errorf("answer %d, closes %t: %q; want %d, %q", res.StatusCode, res.Close, body, tt.status, tt.page)
			}
		})
	}
}

// TestShortRest: for how much of a path the star of a route stands.
func TestShortRest(t *testing.T) {
	up := newBackend(t, says(ok200))
	for _, short := range []bool{false, true} {
		o := defaults()
		o.ShortRest = short
		r := newGate(t, o).to(up.addr)
		for n, want := range map[int]int{maxRest: 200, maxRest + 1: 404} {
			if !short {
				want = 200
			}
			r.dial(t).say("GET /"+strings.Repeat("a", n)+" HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", want, "*")
		}
	}
}

// forwardedOnly returns the lines about the client, in order.
func forwardedOnly(m message) (lines []string) {
	for _, l := range m.lines {
		if name := strings.ToLower(l); strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "forwarded") {
			lines = append(lines, l)
		}
	}
	return lines
}

func TestForwardedLines(t *testing.T) {
	const spoof = "X-Real-IP: 203.0.113.7\r\nx-forwarded-for: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n" +
		"X-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /p\r\nForwarded: for=1.2.3.4\r\n" +
		"X_Real_IP: 1.1.1.1\r\nX-Forwarded_For: 1.1.1.1\r\nX_FORWARDED_PREFIX: /q\r\n"
	everybody := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	own := func(realIP, via, host, port string) []string {
		return []string{"X-Real-IP: " + realIP, "X-Forwarded-For: " + via, "X-Forwarded-Proto: http", "X-Forwarded-Host: " + host, "X-Forwarded-Port: " + port}
	}
	tests := []struct {
		name    string
		options func(o *ServerOptions)
		lines   string
		want    []string // {port} is the listener's
	}{
		{"nothing said", nil, "Host: a", own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"untrusted", nil, "Host: a\r\n" + spoof, own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"somebody else is trusted", func(o *ServerOptions) { o.Trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, "Host: a\r\n" + spoof,
			own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"untrusted, list kept", func(o *ServerOptions) { o.KeepForwardedFor = true }, "Host: a\r\n" + spoof,
			own("127.0.0.1", "198.51.100.1, 203.0.113.7, 127.0.0.1", "a", "{port}")},
		{"X-Real-IP alone is believed", func(o *ServerOptions) { o.RealIPFrom = everybody }, "Host: a\r\n" + spoof,
			own("203.0.113.7", "203.0.113.7", "a", "{port}")},
		{"X-Real-IP of somebody else alone is believed", func(o *ServerOptions) { o.RealIPFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
			"Host: a\r\n" + spoof, own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"trusted", func(o *ServerOptions) { o.Trusted = everybody }, "Host: a\r\n" + spoof, []string{
			"X-Forwarded-Prefix: /p", "X-Real-IP: 203.0.113.7", "X-Forwarded-For: 198.51.100.1, 203.0.113.7, 203.0.113.7",
			"X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example", "X-Forwarded-Port: 443",
		}},
		{"trusted, mapped address", func(o *ServerOptions) { o.Trusted = everybody }, "Host: a\r\nX-Real-IP: ::ffff:203.0.113.7", own("203.0.113.7", "203.0.113.7", "a", "{port}")},
		{"trusted, zone", func(o *ServerOptions) { o.Trusted = everybody }, `Host: a` + "\r\n" + `X-Real-IP: fe80::1%" x`, own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"trusted, no address", func(o *ServerOptions) { o.Trusted = everybody }, "Host: a\r\nX-Real-IP: localhost", own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"trusted, empty lines", func(o *ServerOptions) { o.Trusted = everybody }, "Host: a\r\nX-Forwarded-For:\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto:", own("127.0.0.1", "1.2.3.4, 127.0.0.1", "a", "{port}")},
		{"named in Connection", nil, "Host: a\r\nConnection: close, X-Forwarded-For, x-real-ip", own("127.0.0.1", "127.0.0.1", "a", "{port}")},
		{"port of the host", nil, "Host: A:8080", own("127.0.0.1", "127.0.0.1", "A:8080", "8080")},
		{"trailing dot", nil, "Host: a.:8080", own("127.0.0.1", "127.0.0.1", "a.:8080", "8080")},
		{"empty port", nil, "Host: a:", own("127.0.0.1", "127.0.0.1", "a:", "{port}")},
		{"IPv6", nil, "Host: [::1]", own("127.0.0.1", "127.0.0.1", "[::1]", "{port}")},
		{"IPv6 and port", nil, "Host: [::1]:81", own("127.0.0.1", "127.0.0.1", "[::1]:81", "81")},
	}
	up := newBackend(t, says(ok200))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := defaults()
			if tt.options != nil {
				tt.options(&o)
			}
			r := newGate(t, o).to(up.addr)
			r.dial(t).say("GET / HTTP/1.1\r\n"+strings.TrimSuffix(tt.lines, "\r\n")+"\r\n\r\n").want("GET", 200, "ok")
			_, port, _ := strings.Cut(r.addr, ":")
			want := strings.Split(strings.ReplaceAll(strings.Join(tt.want, "\n"), "{port}", port), "\n")
			if got := forwardedOnly(up.take()[0]); !slices.Equal(got, want) {
				t.Errorf("the upstream saw\n%q, want\n%q", got, want)
			}
		})
	}
}

// TestClientAddress: what routes, plugins and logs take for the client.
func TestClientAddress(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	r := newGate(t, o).to(up.addr, "probe").
		route("inner", `{"uri":"/x","remote_addr":"203.0.113.0/24","plugins":{"probe":{}},"upstream":{"nodes":{"`+up.addr+`":1}}}`)
	var got phase.Client
	var text string
	r.rewrite = func(x *phase.Exchange) phase.Verdict {
		got, text = x.Client, string(x.Client.Text)+" "+string(x.Client.PeerText)+" "+x.Route.ID
		return phase.Continue
	}
	c := r.dial(t).say("GET /x HTTP/1.1\r\nHost: a\r\nX-Real-IP: 203.0.113.9\r\n\r\n")
	c.want("GET", 200, "ok")
	if text != "203.0.113.9 127.0.0.1 inner" || got.Addr.String() != "203.0.113.9" || got.Peer.String() != "127.0.0.1" || got.Port != 0 || !got.Trusted {
		t.Errorf("%s, %+v", text, got)
	}
	c.say(get).want("GET", 200, "ok") // the same connection, and nothing of before
	if text != "127.0.0.1 127.0.0.1 any" || int(got.Port) == 0 || strconv.Itoa(int(got.ServerPort)) != r.addr[strings.LastIndexByte(r.addr, ':')+1:] {
		t.Errorf("%s, %+v", text, got)
	}
}

func TestEndToEndLines(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	tests := []struct{ name, lines, want string }{
		{"order, case, duplicates", "b: 1\r\nHost: a\r\nA: 2\r\nb: 3\r\nUser-Agent: x\r\nuser-agent: y\r\nCookie: c\r\ncookie: d\r\nB: \r\nE:\t4 \t",
			"b: 1|A: 2|b: 3|User-Agent: x|user-agent: y|Cookie: c|cookie: d|B: |E: 4"},
		{"hop by hop", "Host: a\r\nKeep-Alive: 1\r\nTE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\nProxy-Connection: close\r\nProxy-Authenticate: a\r\nProxy-Authorization: a\r\nA: b", "A: b|Connection: TE|TE: trailers"},
		{"codings of the connection", "Host: a\r\nTE: gzip;q=0.5\r\nA: b", "A: b"},
		{"codings and trailers", "Host: a\r\nTE: gzip, Trailers\r\nA: b", "A: b|Connection: TE|TE: trailers"},
		{"named in Connection", "Host: a\r\nA: 1\r\nB: 2\r\nConnection: a , ,b\r\nC: 3\r\nconnection: C,keep-alive\r\nD: 4", "D: 4"},
		{"named, but needed", "Host: a\r\nAuthorization: x\r\nCookie: c\r\nContent-Type: t\r\napikey: k\r\nX-API-Key: k\r\nConnection: host, content-length, Authorization, cookie, content-type, apikey, x-api-key",
			"Authorization: x|Cookie: c|Content-Type: t|apikey: k|X-API-Key: k"},
		{"identity", "Host: a\r\nX-Consumer-Username: a\r\nx_consumer_username: a\r\nX-Consumer_Custom-ID: 1\r\nX-CONSUMER-GROUP: g\r\nX-Credential-Identifier: 1\r\nX_Credential_Identifier: 1\r\n" +
			"X-Userinfo: u\r\nX_ID_Token: t\r\nX-Access-Token: t\r\nX-Authenticated-Groups: g\r\nX-Gateway-Tenant: t\r\nX-Headgate-Split: 1:0:0:v1\r\nx_headgate_split: 1\r\nX-Headgate-Other: kept\r\nX-Consumers: kept\r\nX-Request-ID: kept", "X-Headgate-Other: kept|X-Consumers: kept|X-Request-ID: kept"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.dial(t).say("GET / HTTP/1.1\r\n"+tt.lines+"\r\n\r\n").want("GET", 200, "ok")
			var got []string
			for _, l := range up.take()[0].lines {
				if !strings.HasPrefix(l, "Host:") && !strings.HasPrefix(l, "X-Forwarded-") && !strings.HasPrefix(l, "X-Real-IP") {
					got = append(got, l)
				}
			}
			if strings.Join(got, "|") != tt.want {
				t.Errorf("the upstream saw %q, want %q", got, tt.want)
			}
		})
	}
}

// TestTargets: what is matched is what goes out.
func TestTargets(t *testing.T) {
	tests := []struct{ target, matched, forwarded, raw string }{
		{"/", "/", "/", "/"},
		{"/a/b?c=d", "/a/b", "/a/b?c=d", "/a/b?c=d"},
		{"/a?", "/a", "/a?", "/a?"},
		{"/a??b?", "/a", "/a??b?", "/a??b?"},
		{"/a%2Fb", "/a/b", "/a/b", "/a%2Fb"},
		{"/a%5cb", `/a\b`, "/a%5Cb", "/a%5cb"},
		{`/a\b`, `/a\b`, `/a\b`, `/a\b`},
		{"//a///b", "/a/b", "/a/b", "//a///b"},
		{"/a/./b/../c", "/a/c", "/a/c", "/a/./b/../c"},
		{"/a/%2e%2E/c", "/c", "/c", "/a/%2e%2E/c"},
		{"/a/..", "/", "/", "/a/.."},
		{"/a;b=c/d", "/a;b=c/d", "/a;b=c/d", "/a;b=c/d"},
		{"/%3b%3F%23%25%20", "/;?#% ", "/;%3F%23%25%20", "/%3b%3F%23%25%20"},
		{"/%252e%252e/a", "/%2e%2e/a", "/%252e%252e/a", "/%252e%252e/a"},
		{"/%C3%A4", "/ä", "/%C3%A4", "/%C3%A4"},
		{"/ä", "/ä", "/ä", "/ä"},
		{"/a?b=/../%00", "/a", "/a?b=/../%00", "/a?b=/../%00"},
		{"http://a", "/", "/", "/"},
		{"http://a?b=c", "/", "/?b=c", "/?b=c"},
		{"HTTPS://A:1/x/../y?z", "/y", "/y?z", "/x/../y?z"},
		{"/http://b/", "/http:/b/", "/http:/b/", "/http://b/"},
	}
	for _, raw := range []bool{false, true} {
		up := newBackend(t, says(ok200))
		o := defaults()
		o.RawTarget = raw
		r := newGate(t, o).to(up.addr, "probe")
		var matched string
		r.rewrite = func(x *phase.Exchange) phase.Verdict {
			matched = string(x.Request.Path)
			return phase.Continue
		}
		for _, tt := range tests {
			want := tt.forwarded
			if raw {
				want = tt.raw
			}
			r.dial(t).say("GET "+tt.target+" HTTP/1.1\r\nHost: a\r\n\r\n").want("GET", 200, "ok")
			if got := up.take()[0].target; got != want || matched != tt.matched {
				t.Errorf("raw %t: %s matched %s and went out as %s, want %s and %s", raw, tt.target, matched, got, tt.matched, want)
			}
		}
	}
}

func TestTargetForms(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.TrimSlash = true
	r := newGate(t, o).to(up.addr, "probe").route("server", `{"uri":"*","on_client_abort":"finish","plugins":{"probe":{}},"upstream":{"nodes":{"`+up.addr+`":1}}}`).
		route("b", `{"uri":"/*","host":"b.example","on_client_abort":"finish","upstream":{"nodes":{"`+up.addr+`":1},"pass_host":"node"}}`)
	tests := []struct{ raw, line, host string }{
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *", "a"},
		{"OPTIONS http://a HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS *", "a"},
		{"OPTIONS http://a/ HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS /", "a"},
		{"OPTIONS http://a?b HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS /?b", "a"},
		{"GET /a/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a", "a"},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /", "a"},
		{"GET /%61/./ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a", "a"},
		{"GET http://B.Example./x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x", up.addr},
		{"GET /x HTTP/1.0\r\n\r\n", "GET /x", ""},
		{"PATCH /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", "PATCH /x", "a"},
		{"M-SEARCH /x HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH /x", "a"},
	}
	for _, tt := range tests {
		reply := r.once(t, tt.raw)
		got := up.take()
		if len(got) != 1 || got[0].method+" "+got[0].target != tt.line || got[0].has("host")[0] != tt.host {
			t.Errorf("%q: %q, want %s for %s (%q)", tt.raw, got, tt.line, tt.host, reply)
		}
	}
}

// TestExpect: a client that waits for its invitation gets it, in whatever letters it asks.
func TestExpect(t *testing.T) {
	up := newBackend(t, says(ok200))
	r := newGate(t, defaults()).to(up.addr)
	for _, line := range []string{"Expect: 100-continue", "expect: 100-Continue", "EXPECT:100-continue"} {
		c := r.dial(t).say("POST / HTTP/1.1\r\nHost: a\r\n" + line + "\r\nContent-Length: 5\r\n\r\n")
		c.want("POST", http.StatusContinue, "")
		c.say("hello").want("POST", 200, "ok")
		c.say(get).want("GET", 200, "ok")
		got := up.take()
		if len(got) != 2 || got[0].body != "hello" || len(got[0].has("expect")) > 0 {
			t.Errorf("%s: the upstream saw %q", line, got)
		}
	}
	// HTTP/1.0 knows no expectations (RFC 9110 section 10.1.1).
	if reply := r.once(t, "POST / HTTP/1.0\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\na"); !strings.HasPrefix(reply, "HTTP/1.1 200 ") {
		t.Errorf("%q", reply)
	}
}

// TestBodyTimeout: the body has a clock of its own, and so has the head.
func TestBodyTimeout(t *testing.T) {
	up := newBackend(t, says(ok200))
	for _, tt := range []struct {
		name       string
		head, body time.Duration
		say        string
	}{
		{"head", 20 * time.Millisecond, patience, "GET / HTTP/1.1\r\nHost: "},
		{"body", patience, 20 * time.Millisecond, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na"},
		{"chunks", patience, 20 * time.Millisecond, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na"},
		{"invited body", patience, 20 * time.Millisecond, "POST / HTTP/1.1\r\nHost: a\r\nexpect: 100-continue\r\nContent-Length: 2\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := defaults()
			o.HeadTimeout, o.BodyTimeout = tt.head, tt.body
			r := newGate(t, o).to(up.addr)
			c := r.dial(t).say(tt.say)
			if tt.name == "invited body" {
				c.want("POST", 100, "")
			}
			c.want("POST", 408, "*")
			c.closed()
			asked, code := "POST / HTTP/1.1", "request_body_timeout"
			if tt.name == "head" {
				asked, code = "-", "request_timeout"
			}
			if r.faults(code) != 1 || len(up.take()) != 0 {
				t.Error("it was not counted, or forwarded")
			}
			if line := r.lines(1)[0]; !strings.Contains(line, `127.0.0.1 "`+asked+`" 408 `) {
				t.Errorf("log: %s", line)
			}
		})
	}
	t.Run("a body that takes longer than a head may", func(t *testing.T) {
		o := defaults()
		o.HeadTimeout = 50 * time.Millisecond
		r := newGate(t, o).to(up.addr)
		c := r.dial(t).say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
		time.Sleep(2 * o.HeadTimeout)
		c.say("b").want("POST", 200, "ok")
	})
}

// FuzzTarget: for any target that is accepted, what goes out means the path that was matched, and is one word.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/a", "/a%2f..%2fb", "//a/./%2e", "/%5c%25?x#", "http://a/b", "http://a?b", "*", "/a/;b", "/\xff%ff", "/a%20b?c d"} {
		f.Add([]byte(s), false, false)
		f.Add([]byte(s), true, true)
	}
	f.Fuzz(func(t *testing.T, target []byte, raw, trim bool) {
		e := edge{maxLines: 10, rawTarget: raw, trimSlash: trim}
		x := &exchange{}
		x.Request.Method, x.Request.Authority = []byte("OPTIONS"), []byte("example.com")
		if e.target(target, x) != nil {
			return
		}
		q := &x.Request
		out := e.appendTarget(nil, x)
		for _, c := range out {
			if c <= ' ' || c == 0x7f {
				t.Fatalf("%q went out as %q", target, out)
			}
		}
		path, query := cutQuery(out)
		if string(query) != string(q.Query) {
			t.Fatalf("the query %q went out as %q", q.Query, query)
		}
		if string(path) == "*" {
			return
		}
		if !raw && !trim { // the one form has no other
			again := &exchange{}
			again.Request.Method, again.Request.Authority = x.Request.Method, x.Request.Authority
			if f := e.target(out, again); f != nil || !bytes.Equal(e.appendTarget(nil, again), out) {
				t.Fatalf("%q went out as %q, and that as %q (%v)", target, out, e.appendTarget(nil, again), f)
			}
		}
		got, err := route.AppendNormalized(nil, path)
		if err != nil {
			t.Fatalf("%q went out as %q: %v", target, out, err)
		}
		want := string(q.Path)
		if raw && trim {
			got, want = []byte(strings.TrimSuffix(string(got), "/")), strings.TrimSuffix(want, "/")
		}
		if string(got) != want {
			t.Fatalf("%q was matched as %q and went out as %q, which is %q", target, q.Path, out, got)
		}
	})
}
