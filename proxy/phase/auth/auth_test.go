package auth_test

import (
	"strings"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/auth"
	"headgate/proxy/phase/phasetest"
)

// newEnv knows the consumer anon.
func newEnv() *phasetest.Env {
	anon := &phase.Principal{Consumer: phase.Consumer{Name: "anon"}}
	return &phasetest.Env{Principals: map[string]*phase.Principal{"anon": anon}}
}

func TestRefuse(t *testing.T) {
	const refused = "401\nContent-Type: text/plain; charset=utf-8\nWWW-Authenticate: Basic realm=\"r\"\n\n"
	for _, tt := range []struct {
		anonymous, want string
		hidden          int
		line            string
	}{
		{"", refused + "no\n", 0, ""},
		{"nobody", refused + `{"message":"Invalid user authorization"}` + "\n", 0, ""},
		{"anon", "0\n\n", 1, "anon"},
	} {
		e := newEnv()
		r := auth.NewRefusal(e.Directory(), "Basic", "r", tt.anonymous)
		x := phasetest.Exchange("GET /a")
		x.Registry = e
		hidden := 0
		v := r.Refuse(x, []byte("no\n"), func(x *phase.Exchange) {
			hidden++
			x.Request.Header.Del("X-Consumer-Username") // even then the upstream learns who it is
		})
		line, _ := x.Request.Header.Get("X-Consumer-Username")
		if got := phasetest.Answer(x); got != tt.want || (v == phase.Stop) != (tt.line == "") || hidden != tt.hidden || string(line) != tt.line {
			t.Errorf("%q: verdict %v, hidden %d times, consumer %q, answer %q", tt.anonymous, v, hidden, line, got)
		}
	}
}

func TestAmbiguous(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		want  bool
	}{
		{nil, false},
		{[]string{"Key: a"}, false},
		{[]string{"Key: a", "key: a"}, false},
		{[]string{"Key: a", "Other: b"}, false},
		{[]string{"Key: a", "Other: b", "KEY: b"}, true},
		{[]string{"key: ", "Key: a"}, true},
		{[]string{"key: a", "Key: a", "key: A"}, true},
	} {
		x := phasetest.Exchange("GET /a", tt.lines...)
		if got := auth.Ambiguous(x, "key"); got != tt.want {
			t.Errorf("%q: %t", tt.lines, got)
		}
	}
}

func TestHideArgument(t *testing.T) {
	for _, tt := range []struct{ query, target, wantQuery, wantTarget string }{
		{"a=1&key=2&b", "", "a=1&b", ""},
		{"key=1&%6Bey=2", "/n?key=3", "", "/n"},
		{"a=1", "/n?b=1&key=2&c=%20", "a=1", "/n?b=1&c=%20"},
		{"keys=1&Key=2", "/key=1", "keys=1&Key=2", "/key=1"},
		{"", "", "", ""},
	} {
		x := phasetest.Exchange("GET /a?" + tt.query)
		x.Request.OutTarget = []byte(tt.target)
		auth.HideArgument(x, "key")
		if q := &x.Request; string(q.Query) != tt.wantQuery || string(q.OutTarget) != tt.wantTarget {
			t.Errorf("%q, %q: got %q, %q", tt.query, tt.target, q.Query, q.OutTarget)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := newEnv()
	x, from := &phase.Exchange{}, phasetest.Exchange("GET /a?a=1&key=2&b=3", "Accept: */*")
	for _, anonymous := range []string{"anon", "nobody", ""} {
		r := auth.NewRefusal(e.Directory(), "Basic", "r", anonymous)
		body := []byte("no\n")
		hide := func(x *phase.Exchange) { auth.HideArgument(x, "key") }
		n := testing.AllocsPerRun(100, func() {
			phasetest.Refill(x, from, e)
			r.Refuse(x, body, hide)
		})
		if n != 0 && !raceEnabled {
			t.Errorf("anonymous %q: %v allocations", anonymous, n)
		}
	}
}

// What is hidden is gone, and the rest stays as and where it was.
func FuzzHideArgument(f *testing.F) {
	for _, s := range []string{"apikey=1", "a=1&apikey=2&b", "%61pikey=1&&", "=&apikey&apikey=&x=%", "a+b=c"} {
		f.Add(s, "apikey")
	}
	f.Fuzz(func(t *testing.T, query, name string) {
		x := phasetest.Exchange("GET /")
		x.Request.Query = []byte(query)
		auth.HideArgument(x, name)
		if v, ok := x.Arg(name, nil); ok {
			t.Fatalf("%s still has %s=%s", x.Request.Query, name, v)
		}
		after := strings.Split(string(x.Request.Query), "&")
		for _, pair := range strings.Split(query, "&") {
			if len(after) > 0 && after[0] == pair {
				after = after[1:]
			}
		}
		if len(after) > 0 && string(x.Request.Query) != "" {
			t.Fatalf("%q became %q", query, x.Request.Query)
		}
	})
}
