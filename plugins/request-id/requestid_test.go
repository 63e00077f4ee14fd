package requestid

import (
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// refusal returns the text that a write is refused with, "" when it isn't.
func refusal(t testing.TB, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	if err = s.Validate(doc); err == nil {
		err = Kind().Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

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
	const ranged = `property "range_id" validation failed: `
	tests := []struct{ conf, want string }{
		{`{}`, ""},
		{`{"algorithm":"uuidv7","header_name":"X-Trace","include_in_response":false,"unknown":1}`, ""},
		{`{"algorithm":"range_id","range_id":{}}`, ""},
		{`{"algorithm":"bad"}`, `property "algorithm" validation failed: matches none of the enum values`},
		{`{"range_id":{"char_set":"ab"}}`, ranged + `property "char_set" validation failed: string too short, expected at least 6, got 2`},
		{`{"range_id":{"length":5}}`, ranged + `property "length" validation failed: expected 5 to be at least 6`},
		{`{"range_id":{"length":257}}`, ranged + `property "length" validation failed: expected 257 to be at most 256`},
		{`{"range_id":{"char_set":"ab cd\n"}}`, errCharSet.Error()},
		{`{"range_id":{"char_set":"äöüßéè"}}`, errCharSet.Error()},
		{`{"header_name":"a b"}`, errHeaderName.Error()},
		{`{"header_name":"content-LENGTH"}`, errHeaderName.Error()},
		{`{"include_in_response":1}`, `property "include_in_response" validation failed: wrong type: expected boolean, got number`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// visit sends a request and returns what the upstream saw and what the client got.
func visit(t testing.TB, conf string, reply []string, lines ...string) (upstream, client string) {
	t.Helper()
	env := &phasetest.Env{}
	i := phase.Instance{Name: "request-id", Plugin: env.Build(t, Kind(), conf)}
	serve := func(x *phase.Exchange) {
		upstream = strings.Join(phasetest.Lines(&x.Request.Header), "\n")
		x.Request.Header.Reset() // nobody relies on it from here on
		phasetest.Reply(200, "ok", reply...)(x)
	}
	client = phasetest.Run(phasetest.Exchange("GET /a", lines...), env, serve, i)
	return upstream, client
}

func TestAlgorithms(t *testing.T) {
	tests := []struct{ conf, want string }{
		{`{}`, `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`},
		{`{"algorithm":"uuid"}`, `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`},
		{`{"algorithm":"uuidv7"}`, `[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`},
		{`{"algorithm":"nanoid"}`, `[A-Za-z0-9_-]{21}`},
		{`{"algorithm":"ksuid"}`, `[0-9A-Za-z]{27}`},
		{`{"algorithm":"range_id"}`, `[a-zA-Z0-9]{16}`},
		{`{"algorithm":"range_id","range_id":{"length":8,"char_set":"abcdef"}}`, `[abcdef]{8}`},
	}
	for _, tt := range tests {
		seen := map[string]bool{}
		for range 20 {
			upstream, client := visit(t, tt.conf, nil)
			id, ok := strings.CutPrefix(upstream, "X-Request-Id: ")
			if !ok || !regexp.MustCompile("^"+tt.want+"$").MatchString(id) {
				t.Fatalf("%s: upstream saw %q", tt.conf, upstream)
			}
			if want := "200\nX-Request-Id: " + id + "\n\nok"; client != want {
				t.Fatalf("%s: %q, want %q", tt.conf, client, want)
			}
			seen[id] = true
		}
		if len(seen) < 19 { // 8 letters of 6 repeat once in 80,000 runs
			t.Errorf("%s: %d different ids out of 20", tt.conf, len(seen))
		}
	}
}

func TestIncoming(t *testing.T) {
	tests := []struct {
		name, conf, value string
		kept              bool
	}{
		{"plain", `{}`, "mine", true},
		{"any visible character", `{}`, `a"b\c,;{}~`, true},
		{"longest", `{}`, strings.Repeat("a", 256), true},
		{"too long", `{}`, strings.Repeat("a", 257), false},
		{"empty", `{}`, "", false},
		{"space", `{}`, "a b", false},
		{"tab", `{}`, "a\tb", false},
		{"not ASCII", `{}`, "é", false},
	}
	for _, tt := range tests {
		upstream, client := visit(t, tt.conf, nil, "x-request-id: "+tt.value)
		id, _ := strings.CutPrefix(upstream, "x-request-id: ")
		if (id == tt.value) != tt.kept || len(id) != 36 && !tt.kept {
			t.Errorf("%s: upstream saw %q", tt.name, upstream)
		}
		if want := "200\nX-Request-Id: " + id + "\n\nok"; client != want {
			t.Errorf("%s: client got %q", tt.name, client)
		}
	}
	if upstream, _ := visit(t, `{}`, nil, "X-Request-Id: one", "X-Request-Id: two"); upstream != "X-Request-Id: one" {
		t.Errorf("two ids: %q", upstream)
	}
}

func TestResponse(t *testing.T) {
	tests := []struct {
		conf     string
		reply    []string
		lines    []string
		upstream string
		client   string
	}{
		{`{}`, []string{"X-Request-Id: theirs"}, []string{"X-Request-Id: mine"}, "X-Request-Id: mine", "200\nX-Request-Id: theirs\n\nok"},
		{`{}`, []string{"X-Request-Id: "}, []string{"X-Request-Id: mine"}, "X-Request-Id: mine", "200\nX-Request-Id: mine\n\nok"},
		{`{"header_name":"X-Trace"}`, nil, []string{"X-Trace: t1"}, "X-Trace: t1", "200\nX-Trace: t1\n\nok"},
		{`{"include_in_response":false}`, nil, []string{"X-Request-Id: mine"}, "X-Request-Id: mine", "200\n\nok"},
	}
	for _, tt := range tests {
		upstream, client := visit(t, tt.conf, tt.reply, tt.lines...)
		if upstream != tt.upstream || client != tt.client {
			t.Errorf("%s: upstream saw %q, client got %q", tt.conf, upstream, client)
		}
	}
}

// An answer that was made before the plugin's turn has no id.
func TestNotReached(t *testing.T) {
	env := &phasetest.Env{}
	p := env.Build(t, Kind(), `{}`).(phase.Responder)
	x := phasetest.Exchange("GET /")
	x.Enter(nil, phase.NewChainOf(nil, nil, env.Slots))
	p.Response(x)
	if n := x.Response.Header.Len(); n != 0 {
		t.Errorf("%d lines", n)
	}
}

// Known values: the largest KSUID, and one from its specification's examples, taken apart.
func TestBase62(t *testing.T) {
	tests := []struct{ hex, want string }{
		{"ffffffffffffffffffffffffffffffffffffffff", "aWgEPTl1tmebfsQzFP4bxwgy80V"},
		{"0000000000000000000000000000000000000000", "000000000000000000000000000"},
		{"0669f7efb5a1cd34b5f99d1154fb6853345c9735", "0ujtsYcgvSTl8PAuAdqWYSMnLOv"},
	}
	for _, tt := range tests {
		raw, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		var words [5]uint32
		for i, c := range raw {
			words[i/4] = words[i/4]<<8 | uint32(c)
		}
		if got := string(appendBase62(nil, words)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.hex, got, tt.want)
		}
	}
}

// Ids that begin with the time sort by it.
func TestTimeOrder(t *testing.T) {
	at := time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)
	if got, want := string(appendUUIDv7(nil, at)[:13]), uuidTime(at); got != want {
		t.Errorf("uuidv7 begins with %s, want %s", got, want)
	}
	for _, generate := range []func([]byte, time.Time) []byte{appendUUIDv7, appendKSUID} {
		before := ""
		for i := range 50 {
			id := string(generate(nil, at.Add(time.Duration(i)*time.Second)))
			if id <= before {
				t.Errorf("%s is not behind %s", id, before)
			}
			before = id
		}
	}
}

func uuidTime(at time.Time) string {
	ms := uint64(at.UnixMilli())
	text := hex.EncodeToString([]byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)})
	return text[:8] + "-" + text[8:]
}

func FuzzConfig(f *testing.F) {
	f.Add(`{}`, "mine")
	f.Add(`{"algorithm":"range_id","range_id":{"length":7,"char_set":"~!@#$%^"},"header_name":"x"}`, "")
	f.Add(`{"algorithm":"ksuid","include_in_response":false}`, "a b")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, incoming string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		env := &phasetest.Env{}
		p := env.Build(t, Kind(), conf)
		x := phasetest.Exchange("GET /", "X-Request-Id: "+incoming)
		phasetest.Run(x, env, phasetest.Reply(200, "ok"), phase.Instance{Name: "request-id", Plugin: p})
		for _, line := range x.Response.Header.Fields() {
			if id := line.Value; len(id) < 1 || len(id) > maxIncoming || !visible(id) {
				t.Errorf("%s: id %q", conf, id)
			}
		}
	})
}

func BenchmarkGenerate(b *testing.B) {
	for _, algorithm := range []string{"uuid", "uuidv7", "nanoid", "range_id", "ksuid"} {
		b.Run(algorithm, func(b *testing.B) {
			generate := generator(Config{Algorithm: algorithm, RangeLength: 16, RangeSet: alphanumeric})
			buf, now := make([]byte, 0, 64), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				generate(buf, now)
			}
		})
	}
}
