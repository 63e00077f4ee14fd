package v3

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"headgate/conf"
)

const (
	emptyList  = `{"list":[],"total":0}` + "\n"
	missingKey = `{"error_msg":"failed to check token","description":"missing apikey"}` + "\n"
	wrongKey   = `{"error_msg":"failed to check token","description":"wrong apikey"}` + "\n"
	onlyReads  = `{"error_msg":"failed to check token","description":"invalid method for role viewer"}` + "\n"
	tooMany    = `{"error_msg":"failed to check token","description":"too many wrong keys, try again in * s"}` + "\n"
	crossSite  = `{"error_msg":"requests from web pages of other sites are refused"}` + "\n"
	page403    = "<html>*<title>403 Forbidden</title>*</html>\r\n"
	page404    = "<html>*<title>404 Not Found</title>*</html>\r\n"
)

func TestKeys(t *testing.T) {
	h := start(t)
	tests := []struct {
		name, method, target string
		headers              []string
		status               int
		body                 string
	}{
		{"none", "GET", "/apisix/admin/routes", nil, 401, missingKey},
		{"header", "GET", "/apisix/admin/routes", []string{"X-API-KEY: " + adminKey}, 200, emptyList},
		{"empty header", "GET", "/apisix/admin/routes", []string{"X-API-KEY:"}, 401, wrongKey},
		{"two headers", "GET", "/apisix/admin/routes", []string{"X-API-KEY: " + adminKey, "x-api-key: " + adminKey}, 401, wrongKey},
		{"prefix of a key", "GET", "/apisix/admin/routes", []string{"X-API-KEY: " + adminKey[:31]}, 401, wrongKey},
		{"query", "GET", "/apisix/admin/routes?api_key=" + adminKey, nil, 200, emptyList},
		{"query without a value hides the header", "GET", "/apisix/admin/routes?api_key", []string{"X-API-KEY: " + adminKey}, 401, wrongKey},
		{"header hides the cookie", "GET", "/apisix/admin/routes", []string{"X-API-KEY: x", "Cookie: x_api_key=" + adminKey}, 401, wrongKey},
		{"cookie", "GET", "/apisix/admin/routes", []string{"Cookie: a=b; x_api_key=" + adminKey}, 200, emptyList},
		{"cookie sent by a page elsewhere", "PUT", "/apisix/admin/routes/1",
			[]string{"Cookie: x_api_key=" + adminKey, "Sec-Fetch-Site: cross-site"}, 403, crossSite},
		{"header sent by a page elsewhere", "GET", "/apisix/admin/routes",
			[]string{"X-API-KEY: " + adminKey, "Sec-Fetch-Site: cross-site"}, 200, emptyList},
		{"expired", "GET", "/apisix/admin/routes", []string{"X-API-KEY: " + expiredKey}, 401, wrongKey},
		{"viewer reads", "GET", "/apisix/admin/routes", []string{"X-API-KEY: " + viewerKey}, 200, emptyList},
		{"viewer writes", "PUT", "/apisix/admin/routes/1", []string{"X-API-KEY: " + viewerKey}, 401, onlyReads},
		{"viewer deletes what is not there", "DELETE", "/apisix/admin/nope/1", []string{"X-API-KEY: " + viewerKey}, 401, onlyReads},
		{"unknown path below the root", "GET", "/apisix/admin/nope", nil, 401, missingKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.t, h.key = t, ""
			a := h.want(tt.status, tt.body, tt.method, tt.target, "", tt.headers...)
			if tt.status == 401 && a.header.Get("X-Api-Version") != "" {
				t.Error("a refused key must not see X-API-VERSION")
			}
		})
	}
	log := h.logged()
	for _, key := range []string{adminKey, viewerKey, expiredKey} {
		if strings.Contains(log, key) {
			t.Errorf("the log holds a key:\n%s", log)
		}
	}
	for _, want := range []string{`the key "old" expired at 2023-11-14T22:13:20Z`, "wrong key", `key="eyes"`} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
}

func TestKeyExpiresWhileRunning(t *testing.T) {
	h := start(t)
	h.keys[0].Expires = h.now().Add(time.Hour)
	h.want(200, emptyList, "GET", "/apisix/admin/routes", "")
	h.advance(time.Hour)
	h.want(401, wrongKey, "GET", "/apisix/admin/routes", "")
}

func TestKeysAreSwapped(t *testing.T) {
	h := start(t)
	h.want(200, emptyList, "GET", "/apisix/admin/routes", "")
	h.mu.Lock()
	h.keys = KeysOf([]conf.AdminKey{{Name: "new", Key: conf.Secret(expiredKey), Role: conf.RoleAdmin}})
	h.mu.Unlock()
	h.want(401, wrongKey, "GET", "/apisix/admin/routes", "")
	h.key = expiredKey
	h.want(200, emptyList, "GET", "/apisix/admin/routes", "")
}

func TestEqualKeysPreferTheOneThatWorks(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		now := time.Unix(100, 0)
		keys := []Key{testKey("old", adminKey, conf.RoleAdmin), testKey("new", adminKey, conf.RoleAdmin)}
		keys[0].Expires = now
		keys = []Key{keys[order[0]], keys[order[1]]}
		if k := findKey(keys, []byte(adminKey), now); k == nil || k.Name != "new" {
			t.Errorf("order %v: found %v", order, k)
		}
	}
}

func TestNoKeyRequired(t *testing.T) {
	h := start(t, func(o *Options) { o.KeyRequired = false })
	h.key = ""
	h.want(200, emptyList, "GET", "/apisix/admin/routes", "")
	h.want(201, "*", "PUT", "/apisix/admin/routes/1", routeBody)
	for _, headers := range [][]string{{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}} {
		h.want(403, crossSite, "DELETE", "/apisix/admin/routes/1", "", headers...)
	}
	rebound := "DELETE /apisix/admin/routes/1 HTTP/1.1\r\nHost: evil.example:9180\r\nConnection: close\r\n\r\n"
	if a, err := h.exchange("DELETE", rebound); err != nil || a.status != 403 {
		t.Errorf("a name that resolves to loopback: %v %v", a.status, err)
	}
	if h.stored("routes/1") == "" {
		t.Error("a refused request deleted the route")
	}
}

func TestKeyRequiredButNoneConfigured(t *testing.T) {
	h := start(t, func(o *Options) { o.Keys = nil })
	h.want(401, wrongKey, "GET", "/apisix/admin/routes", "")
}

func TestPeers(t *testing.T) {
	tests := []struct {
		peer   string
		status int
	}{
		{"127.0.0.1:1", 200}, {"10.9.8.7:1", 200}, {"[fd00::1]:1", 200}, {"[::ffff:10.0.0.1]:1", 200},
		{"127.0.1.1:1", 403}, {"192.168.0.1:1", 403}, {"[::1]:1", 403}, {"[::ffff:192.168.0.1]:1", 403}, {"[2001:db8::1]:1", 403},
	}
	h := start(t)
	for _, tt := range tests {
		h.from(tt.peer)
		a := h.do("GET", "/apisix/admin/routes", "", "X-Real-IP: 127.0.0.1", "X-Forwarded-For: 127.0.0.1")
		if a.status != tt.status {
			t.Errorf("%s: status %d, want %d", tt.peer, a.status, tt.status)
		}
		if tt.status == 403 && (!like(a.body, page403) || a.header.Get("Access-Control-Allow-Origin") != "" ||
			a.header.Get("Content-Type") != "text/html; charset=utf-8" || a.header.Get("Server") != "APISIX/3.18.0") {
			t.Errorf("%s: %s\n%s", tt.peer, a.raw, a.body)
		}
	}
	h.from("192.168.0.1:1")
	for _, method := range []string{"OPTIONS", "HEAD", "PUT"} {
		if a := h.do(method, "/apisix/admin", ""); a.status != 403 {
			t.Errorf("%s from a foreign peer: %d", method, a.status)
		}
	}
}

func TestNobodyAllowed(t *testing.T) {
	h := start(t, func(o *Options) { o.Allow = nil })
	h.want(403, page403, "GET", "/apisix/admin/routes", "")
}

func TestBrake(t *testing.T) {
	h := start(t)
	h.from("10.0.0.1:1")
	wrong := func(want int) answer {
		t.Helper()
		a := h.do("GET", "/apisix/admin/routes", "", "X-API-KEY: guess")
		if a.status != want {
			t.Fatalf("status %d %s, want %d", a.status, a.body, want)
		}
		return a
	}
	for range 10 {
		wrong(401)
	}
	h.advance(18*time.Second + time.Millisecond)
	a := wrong(429)
	if a.header.Get("Retry-After") != "42" || !like(a.body, tooMany) {
		t.Errorf("%s\n%s", a.raw, a.body)
	}
	h.want(200, emptyList, "GET", "/apisix/admin/routes", "") // the right key is never braked
	h.key = ""
	h.want(401, missingKey, "GET", "/apisix/admin/routes", "") // no key is no guess
	h.key = adminKey
	h.from("10.0.0.2:1")
	wrong(401) // nor is a neighbour
	h.from("10.0.0.1:1")
	wrong(429)
	h.advance(time.Minute)
	wrong(401)
	if n := strings.Count(h.logged(), "answering 429"); n != 1 {
		t.Errorf("the brake was logged %d times:\n%s", n, h.logged())
	}
	if n := strings.Count(h.logged(), "peer=10.0.0.1"); n != 12 {
		t.Errorf("%d lines about one guesser:\n%s", n, h.logged())
	}
}

func TestBrakeSources(t *testing.T) {
	now := time.Unix(0, 0)
	tests := []struct {
		name, first, second string
		same                bool
	}{
		{"one IPv6 network", "2001:db8::1", "2001:db8::ffff:1", true},
		{"two IPv6 networks", "2001:db8::1", "2001:db8:0:1::1", false},
		{"two IPv4 addresses", "10.0.0.1", "10.0.0.2", false},
	}
	for _, tt := range tests {
		var b brake
		b.fail(netip.MustParseAddr(tt.first), now)
		n, _ := b.fail(netip.MustParseAddr(tt.second), now)
		if (n == 2) != tt.same {
			t.Errorf("%s: counted %d", tt.name, n)
		}
	}
	if limitOf(netip.MustParseAddr("127.0.0.1")) <= limitOf(netip.MustParseAddr("10.0.0.1")) {
		t.Error("loopback is shared by everybody on the machine and needs more room")
	}
}

func TestBrakeIsBounded(t *testing.T) {
	var b brake
	now := time.Unix(0, 0)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 3 * maxSources {
		b.fail(at(i), now)
	}
	if len(b.sources) != maxSources {
		t.Errorf("%d sources are held", len(b.sources))
	}
	if n, wait := b.fail(at(1<<20), now); n != 2*maxSources+1 || wait != time.Minute {
		t.Errorf("what does not fit counts together: %d, %v", n, wait)
	}
	if n, _ := b.fail(at(0), now); n != 2 {
		t.Errorf("a known source lost its count: %d", n)
	}
	if n, _ := b.fail(at(1<<20), now.Add(time.Minute)); n != 1 || len(b.sources) != 1 {
		t.Errorf("after the window %d failures in %d sources", n, len(b.sources))
	}
}

func TestOddRequests(t *testing.T) {
	h := start(t)
	tests := []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/", 404, page404},
		{"GET", "/apisix", 404, page404},
		{"GET", "/apisix/admin", 404, page404},
		{"GET", "/apisix/administrator", 404, page404},
		{"GET", "/apisix/admin/", 404, `{"error_msg":"Unsupported resource type: "}` + "\n"},
		{"GET", "/apisix/admin/../admin/./routes", 200, emptyList},
		{"GET", "/apisix/admin/%72outes", 200, emptyList},
		{"GET", "/apisix/admin/routes/", 200, emptyList},
		{"LOCK", "/apisix/admin/routes/1", 404, page404},
		{"TRACE", "/apisix/admin/routes/1", 405, "*405 Not Allowed*"},
		{"HEAD", "/apisix/admin", 200, ""},
		{"HEAD", "/apisix/admin/routes", 404, ""},
	}
	for _, tt := range tests {
		h.want(tt.status, tt.body, tt.method, tt.target, "")
	}
}

func TestWithoutCORS(t *testing.T) {
	h := start(t, func(o *Options) { o.CORS = false })
	h.want(404, page404, "OPTIONS", "/apisix/admin/routes", "")
	if a := h.want(200, emptyList, "GET", "/apisix/admin/routes", ""); strings.Contains(a.raw, "Access-Control") {
		t.Errorf("CORS headers although it is off:\n%s", a.raw)
	}
}

func TestHeaderSpelling(t *testing.T) {
	h := start(t)
	a := h.do("GET", "/apisix/admin/routes", "")
	for _, line := range []string{"X-API-VERSION: v3", "Server: APISIX/3.18.0", "Content-Type: application/json", "Access-Control-Allow-Origin: *"} {
		if !strings.Contains(a.raw+"\r\n", "\r\n"+line+"\r\n") {
			t.Errorf("%q is not in\n%s", line, a.raw)
		}
	}
}

func TestHeaderBomb(t *testing.T) {
	h := start(t)
	var lines []string
	for i := range 101 {
		lines = append(lines, fmt.Sprintf("A%d: b", i))
	}
	h.want(431, "*431*", "GET", "/apisix/admin/routes", "", lines...)
	h.want(431, "*431*", "GET", "/apisix/admin/routes", "", "A: "+strings.Repeat("x", 20_000))
	h.want(200, emptyList, "GET", "/apisix/admin/routes", "", lines[:90]...)
}

func TestPanicIsContained(t *testing.T) {
	h := start(t, func(o *Options) { o.Keys = func() []Key { panic("broken") } })
	a := h.want(500, "*500 Internal Server Error*", "GET", "/apisix/admin/routes", "")
	if a.header.Get("Server") != "APISIX/3.18.0" {
		t.Errorf("%s", a.raw)
	}
	if !strings.Contains(h.logged(), "broken") {
		t.Error("the panic is not in the log")
	}
}
