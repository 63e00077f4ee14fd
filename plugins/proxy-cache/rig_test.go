package proxycache

import (
	"io"
	"strings"
	"testing"
	"time"

	"headgate/conf/schema"
	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// rig is a gateway's worth of proxy-cache: zones "memory" and "disk", whose tasks run at once, a clock, and an upstream that counts.
type rig struct {
	t     testing.TB
	env   phasetest.Env
	cache *Cache
	kind  phase.Kind
	meter *meter.Registry
	clock time.Time
	asked int // requests that came to the upstream
	log   []string
}

func newRig(t testing.TB, zones ...Zone) *rig {
	t.Helper()
	if len(zones) == 0 {
		zones = []Zone{{Name: "memory", Memory: 1 << 20}, {Name: "disk", Memory: 1 << 20, Disk: 1 << 20, Path: t.TempDir(), Levels: []int{1, 2}}}
	}
	r := &rig{t: t, meter: meter.New(""), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r.cache = New(Options{Zones: zones, TTL: 10 * time.Second, Meter: r.meter, Background: func(task func()) bool { task(); return true },
		Logf: func(string, ...any) { r.log = append(r.log, "logged") }})
	t.Cleanup(r.cache.Close)
	r.kind = Kind(r.cache)
	return r
}

// plugin builds the plugin; conf is what follows zone and strategy.
func (r *rig) plugin(zone, conf string) phase.Instance {
	r.t.Helper()
	text := `{"cache_zone":"` + zone + `","cache_strategy":"` + zone + `"`
	if conf != "" {
		text += "," + conf
	}
	text += "}"
	s, err := schema.Compile(r.kind.Name, r.kind.Schema)
	if err != nil {
		r.t.Fatal(err)
	}
	doc, err := schema.DecodeJSON([]byte(text))
	if err != nil {
		r.t.Fatalf("%s: %v", text, err)
	}
	if err := s.Validate(doc); err != nil {
		r.t.Fatalf("%s: %v", text, err)
	}
	return phase.Instance{Name: r.kind.Name, Plugin: r.env.Build(r.t, r.kind, text)}
}

// ask sends a request, "GET /path|Header: value|...", to which the upstream would say reply, and returns status, cache status and body.
func (r *rig) ask(p phase.Instance, request string, reply func(x *phase.Exchange), prepare ...func(x *phase.Exchange)) string {
	r.t.Helper()
	x := r.exchange(request)
	for _, f := range prepare {
		f(x)
	}
	return r.run(x, p, reply)
}

func (r *rig) exchange(request string) *phase.Exchange {
	parts := strings.Split(request, "|")
	x := phasetest.Exchange(parts[0], parts[1:]...)
	x.Start, x.Route = r.clock, &phase.Route{ID: "1"}
	return x
}

func (r *rig) run(x *phase.Exchange, p phase.Instance, reply func(x *phase.Exchange)) string {
	answer := phasetest.Run(x, &r.env, func(x *phase.Exchange) {
		r.asked++
		reply(x)
	}, p)
	if strings.HasPrefix(answer, "broken off") {
		return answer
	}
	head, body, _ := strings.Cut(answer, "\n\n")
	lines := strings.Split(head, "\n")
	got := lines[0]
	for _, l := range lines[1:] {
		if s, ok := strings.CutPrefix(l, "Apisix-Cache-Status: "); ok {
			got += " " + s
		}
	}
	return strings.TrimSuffix(got+" "+body, " ")
}

// expect asks and compares.
func (r *rig) expect(p phase.Instance, request string, reply func(x *phase.Exchange), want string, prepare ...func(x *phase.Exchange)) {
	r.t.Helper()
	if got := r.ask(p, request, reply, prepare...); got != want {
		r.t.Errorf("%s: %q, want %q", request, got, want)
	}
}

func says(body string, lines ...string) func(x *phase.Exchange) {
	return phasetest.Reply(200, body, lines...)
}

func streams(end error, size int64, pieces ...string) func(x *phase.Exchange) {
	return phasetest.Pieces(200, pieces, end, size)
}

// both runs f for either kind of zone.
func both(t *testing.T, f func(t *testing.T, r *rig, zone string)) {
	for _, zone := range []string{"memory", "disk"} {
		t.Run(zone, func(t *testing.T) { f(t, newRig(t), zone) })
	}
}

func TestHit(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		r.expect(p, "GET /a?b=1", says("one", "Content-Type: text/plain", "X-A: 1", "X-A: 2", "Age: 3"), "200 MISS one")
		r.clock = r.clock.Add(4500 * time.Millisecond)
		x := r.exchange("GET /a?b=1")
		x.Response.Header.Add([]byte("X-Early"), []byte("of a plugin"))
		got := phasetest.Run(x, &r.env, func(*phase.Exchange) { t.Error("the upstream was asked") }, p)
		want := "200\nAge: 4\nApisix-Cache-Status: HIT\nContent-Type: text/plain\nX-A: 1\nX-A: 2\nX-Early: of a plugin\n\none"
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if x.Response.Source != phase.FromPlugin || !x.Stopped() {
			t.Errorf("source %v, stopped %v", x.Response.Source, x.Stopped())
		}
		r.expect(p, "GET /a?b=2", says("two"), "200 MISS two")
		r.expect(p, "GET /a?b=1|Host: other", says("three"), "200 MISS three")
	})
}

func TestStreamedBodies(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	pieces := []string{long[:70_000], long[70_000:70_001], "", long[70_001:]}
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, "")
		for _, size := range []int64{-1, int64(len(long))} {
			path := "GET /" + string(rune('b'+size%2))
			r.expect(p, path, streams(io.EOF, size, pieces...), "200 MISS "+long)
			r.expect(p, path, says("the upstream"), "200 HIT "+long)
		}
		cut := io.ErrUnexpectedEOF
		r.expect(p, "GET /cut", streams(cut, -1, pieces...), "broken off: "+cut.Error())
		r.expect(p, "GET /cut", says("whole"), "200 MISS whole")
		// A client that leaves: the stream is closed before its end.
		x := r.exchange("GET /left")
		x.Registry = &r.env
		x.Enter(nil, phase.NewChainOf([]phase.Instance{p}, nil, r.env.Slots))
		x.Access()
		streams(io.EOF, -1, "a", "b")(x)
		x.Receive(0)
		x.Respond()
		_, _ = x.Response.Stream.Next()
		x.Response.Stream.Close()
		x.Finish(func(r any) { panic(r) })
		r.expect(p, "GET /left", says("whole"), "200 MISS whole")
		if n := r.cache.zones[zone].recording.Load(); n != 0 {
			t.Errorf("%d bytes are still being recorded", n)
		}
	})
}

func TestMaxBody(t *testing.T) {
	both(t, func(t *testing.T, r *rig, zone string) {
		p := r.plugin(zone, `"max_resp_body_size":5`)
		r.expect(p, "GET /5", says("12345"), "200 MISS 12345")
		r.expect(p, "GET /5", says("x"), "200 HIT 12345")
		r.expect(p, "GET /6", says("123456"), "200 MISS 123456")
		r.expect(p, "GET /6", streams(io.EOF, 6, "123456"), "200 MISS 123456")
		r.expect(p, "GET /6", streams(io.EOF, -1, "123", "456"), "200 MISS 123456")
		r.expect(p, "GET /6", streams(io.EOF, -1, "123", "45"), "200 MISS 12345")
		r.expect(p, "GET /6", says("x"), "200 HIT 12345")
	})
}
