package faultinjection

import (
	"strings"
	"testing"
	"testing/synctest"
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
	const abort, delay = `property "abort" validation failed: `, `property "delay" validation failed: `
	tests := []struct{ conf, want string }{
		{`{"abort":{"http_status":200}}`, ""},
		{`{"delay":{"duration":0.5,"percentage":0,"vars":[]},"unknown":1}`, ""},
		{`{"abort":{"http_status":503,"body":"","headers":{"X-A":"$uri","X-N":5},"vars":[[["a","==","b"]],[]]}}`, ""},
		{`{"unknown":1}`, ""},
		{`{}`, `expect object to have at least 1 properties`},
		{`{"abort":{}}`, abort + `property "http_status" is required`},
		{`{"abort":{"http_status":100}}`, abort + `property "http_status" validation failed: expected 100 to be at least 200`},
		{`{"abort":{"http_status":1000}}`, abort + `property "http_status" validation failed: expected 1000 to be at most 999`},
		{`{"abort":{"http_status":200,"percentage":101}}`, abort + `property "percentage" validation failed: expected 101 to be at most 100`},
		{`{"abort":{"http_status":200,"headers":{}}}`, abort + `property "headers" validation failed: expect object to have at least 1 properties`},
		{`{"abort":{"http_status":200,"headers":{"X-A":true}}}`, abort + `property "headers" validation failed: ` +
			`failed to validate X-A (matching "^[^:]+$"): value should match only one schema, but matches none`},
		{`{"abort":{"http_status":200,"headers":{"X A":"b"}}}`, `invalid character in header`},
		{`{"abort":{"http_status":200,"headers":{"X-A":"b\r\nc"}}}`, `invalid character in header`},
		{`{"abort":{"http_status":200,"vars":[[["a","=","b"]]]}}`, `invalid operator '='`},
		{`{"abort":{"http_status":200,"vars":["a"]}}`, abort + `property "vars" validation failed: failed to validate item 1: ` +
			`wrong type: expected array, got string`},
		{`{"delay":{}}`, delay + `property "duration" is required`},
		{`{"delay":{"duration":-1}}`, delay + `property "duration" validation failed: expected -1 to be at least 0`},
		{`{"delay":{"duration":1,"vars":[["a","==","b"]]}}`, `rule should be wrapped inside brackets`},
		{`{"delay":{"duration":1,"vars":[` + strings.Repeat(`[],`, 20) + `[]]}}`, delay + `property "vars" validation failed: ` +
			`expect array to have at most 20 items`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func instance(t testing.TB, conf string) phase.Instance {
	t.Helper()
	return phase.Instance{Name: "fault-injection", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
}

func visit(t testing.TB, conf, request string, lines ...string) string {
	t.Helper()
	return phasetest.Run(phasetest.Exchange(request, lines...), &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
}

const (
	passed = "200\n\nok"
	text   = "Content-Type: text/plain; charset=utf-8\n"
)

func TestAbort(t *testing.T) {
	const vars = `"vars":[[["arg_a","==","1"],["arg_b","==","1"]],[["http_x_c","==","1"]]]`
	tests := []struct{ conf, request, want string }{
		{`{"abort":{"http_status":403,"body":"fault\n"}}`, "GET /a", "403\n" + text + "\nfault\n"},
		{`{"abort":{"http_status":200,"body":""}}`, "GET /a", "200\n" + text + "\n"},
		{`{"abort":{"http_status":503}}`, "GET /a", "503\nContent-Type: text/html; charset=utf-8\n\n<html>\r\n<head><title>503 Service Temporarily " +
			"Unavailable</title></head>\r\n<body>\r\n<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n</body>\r\n</html>\r\n"},
		{`{"abort":{"http_status":418}}`, "GET /a", "418\n\n"},
		{`{"abort":{"http_status":204}}`, "GET /a", "204\n\n"},
		{`{"abort":{"http_status":200}}`, "GET /a", "200\n" + text + "\n"},
		{`{"abort":{"http_status":200,"body":"$arg_a at ${host ?? x}, ${none}."}}`, "GET /a?a=%22", "200\n" + text + "\n\" at gateway.test, ."},
		{`{"abort":{"http_status":200,"body":"","headers":{"X-N":5.50,"X-A":"$uri","Content-Type":"a/b","content-length":"9"}}}`, "GET /a",
			"200\nContent-Type: a/b\nX-A: /a\nX-N: 5.5\n\n"},
		{`{"abort":{"http_status":200,"body":"","headers":{"X-A":"<$arg_a>"}}}`, "GET /a?a=%0d%0aX-B:%20c", "200\n" + text + "X-A: <%0D%0AX-B: c>\n\n"},

		{`{"abort":{"http_status":418,"percentage":0}}`, "GET /a", passed},
		{`{"abort":{"http_status":418,"percentage":100}}`, "GET /a", "418\n\n"},
		{`{"abort":{"http_status":418,` + vars + `}}`, "GET /a?a=1&b=1", "418\n\n"},
		{`{"abort":{"http_status":418,` + vars + `}}`, "GET /a?a=1", passed},
		{`{"abort":{"http_status":418,"vars":[]}}`, "GET /a", passed},
		{`{"abort":{"http_status":418,"vars":{}}}`, "GET /a", passed},
		{`{"abort":{"http_status":418,"vars":[[]]}}`, "GET /a", "418\n\n"},
		{`{"abort":{"http_status":418,"vars":[[["arg_a","==","1"]]],"percentage":0}}`, "GET /a?a=1", passed},
	}
	for _, tt := range tests {
		if got := visit(t, tt.conf, tt.request); got != tt.want {
			t.Errorf("%s, %s\ngot  %q\nwant %q", tt.conf, tt.request, got, tt.want)
		}
	}
	if got := visit(t, `{"abort":{"http_status":418,`+vars+`}}`, "GET /a", "X-C: 1"); got != "418\n\n" {
		t.Errorf("second item: %q", got)
	}
}

// Of a thousand requests at 30 percent, fewer than 200 or more than 400 are a matter of one in 10^11.
func TestPercentage(t *testing.T) {
	p := instance(t, `{"abort":{"http_status":418,"percentage":30}}`).Plugin.(phase.Rewriter)
	aborted := 0
	for range 1000 {
		if p.Rewrite(phasetest.Exchange("GET /a")) == phase.Stop {
			aborted++
		}
	}
	if aborted < 200 || aborted > 400 {
		t.Errorf("%d of 1000", aborted)
	}
}

// The clock is that of the bubble: it stands still but for the sleep.
func TestDelay(t *testing.T) {
	tests := []struct {
		conf    string
		waited  time.Duration
		outcome string
	}{
		{`{"delay":{"duration":0.25}}`, 250 * time.Millisecond, passed},
		{`{"delay":{"duration":3},"abort":{"http_status":418}}`, 3 * time.Second, "418\n\n"},
		{`{"delay":{"duration":1e300}}`, time.Hour, passed},
		{`{"delay":{"duration":3,"percentage":0}}`, 0, passed},
		{`{"delay":{"duration":3,"vars":[[["arg_a","==","1"]]]},"abort":{"http_status":418}}`, 0, "418\n\n"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			got := visit(t, tt.conf, "GET /a")
			if waited := time.Since(start); got != tt.outcome || waited != tt.waited {
				t.Errorf("%s: %q, waited %v", tt.conf, got, waited)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"abort":{"http_status":403,"body":"$uri","headers":{"X-A":"$arg_a"},"vars":[[["arg_a","~~","."]]]}}`, "a=%0a")
	f.Add(`{"delay":{"duration":1e-9,"percentage":50},"abort":{"http_status":200}}`, "")
	f.Add(`{"abort":{"http_status":999,"body":"${uri ?? x}$"}}`, "x")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		if c, err := read([]byte(conf)); err != nil || c.Delay != nil && c.Delay.Duration > time.Millisecond {
			return
		}
		x := phasetest.Exchange("GET /?" + query)
		got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
		for _, l := range x.Response.Header.Fields() {
			if strings.ContainsAny(string(l.Name)+string(l.Value), "\r\n\x00") {
				t.Errorf("%s: %q", conf, got)
			}
		}
	})
}
