package realip

import (
	"strconv"
	"strings"
	"testing"

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
	const trusted = `property "trusted_addresses" validation failed: `
	tests := []struct{ conf, want string }{
		{`{"source":"http_x_client"}`, ""},
		{`{"source":"no_such_variable","trusted_addresses":["127.0.0.0/8","::1","::ffff:1.2.3.4/120"],"recursive":true,"unknown":1}`, ""},
		{`{}`, `property "source" is required`},
		{`{"source":""}`, `property "source" validation failed: string too short, expected at least 1, got 0`},
		{`{"source":"a","trusted_addresses":[]}`, trusted + `expect array to have at least 1 items`},
		{`{"source":"a","trusted_addresses":["x"]}`, trusted + `failed to validate item 1: object matches none of the required`},
		{`{"source":"a","trusted_addresses":[":::/8"]}`, `invalid ip address: :::/8`},
		{`{"source":"a","recursive":1}`, `property "recursive" validation failed: wrong type: expected boolean, got number`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

// visit sends a request as the gateway hands it to plugins, with the address that it has seen in X-Forwarded-For, and says who the client
// is then: address, port, and the lines that the upstream gets.
func visit(t testing.TB, conf, request string, lines ...string) string {
	t.Helper()
	x := phasetest.Exchange(request, lines...)
	i := phase.Instance{Name: "real-ip", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
	phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), i)
	real, _ := x.Request.Header.Get("X-Real-IP")
	via, _ := x.Request.Header.Get("X-Forwarded-For")
	out := string(x.Client.Text) + " " + strconv.Itoa(int(x.Client.Port)) + " | " + string(real) + " | " + string(via)
	if x.Client.Addr.String() != string(x.Client.Text) {
		out += " differs from " + x.Client.Addr.String()
	}
	return out
}

func TestClient(t *testing.T) {
	const before = "127.0.0.1 40000 | 127.0.0.1 | 127.0.0.1"
	const header, list = `{"source":"http_x_client"}`, `{"source":"http_x_forwarded_for"`
	tests := []struct {
		conf, request string
		lines         []string // the last one is X-Forwarded-For; none: as if the client had sent none
		want          string
	}{
		{header, "GET /", []string{"X-Client: 1.2.3.4"}, "1.2.3.4 0 | 1.2.3.4 | 1.2.3.4"},
		{header, "GET /", []string{"X-Client: 1.2.3.4:80"}, "1.2.3.4 80 | 1.2.3.4 | 1.2.3.4"},
		{header, "GET /", []string{"X-Client: ::ffff:1.2.3.4"}, "1.2.3.4 0 | 1.2.3.4 | 1.2.3.4"},
		{header, "GET /", []string{"X-Client: FE80::0:1"}, "fe80::1 0 | fe80::1 | fe80::1"},
		{header, "GET /", []string{"X-Client: [::1]:5678"}, "::1 5678 | ::1 | ::1"},
		{header, "GET /", []string{"X-Client: [::1]"}, "::1 0 | ::1 | ::1"},
		{header, "GET /", nil, before},
		{header, "GET /", []string{"X-Client: "}, before},
		{header, "GET /", []string{"X-Client: bad"}, before},
		{header, "GET /", []string{"X-Client: 1.2.3.4:0"}, before},
		{header, "GET /", []string{"X-Client: 1.2.3.4:65536"}, before},
		{header, "GET /", []string{"X-Client: 1.2.3.4:x"}, before},
		{header, "GET /", []string{"X-Client: [1.2.3.4]:80"}, before},
		{header, "GET /", []string{"X-Client: fe80::1%25eth0"}, before},
		{header, "GET /", []string{"X-Client: 1.2.3.4, 5.6.7.8"}, before},
		{header, "GET /", []string{"X-Client: 1.2.3.4", "X-Forwarded-For: 9.9.9.9, 127.0.0.1"}, "1.2.3.4 0 | 1.2.3.4 | 9.9.9.9, 1.2.3.4"},
		{`{"source":"arg_ip"}`, "GET /a?ip=1.2.3.4:5678", nil, "1.2.3.4 5678 | 1.2.3.4 | 1.2.3.4"},
		{`{"source":"arg_ip"}`, "GET /a?ip=bad", nil, before},
		{`{"source":"no_such_variable"}`, "GET /a", nil, before},

		{list + `}`, "GET /", nil, before},
		{list + `}`, "GET /", []string{"X-Forwarded-For: 1.1.1.1, 127.0.0.1"}, "1.1.1.1 0 | 1.1.1.1 | 1.1.1.1, 1.1.1.1"},
		{list + `}`, "GET /", []string{"X-Forwarded-For: 1.1.1.1,2.2.2.2, 127.0.0.1"}, "2.2.2.2 0 | 2.2.2.2 | 1.1.1.1,2.2.2.2, 2.2.2.2"},
		{list + `,"trusted_addresses":["127.0.0.0/8","2.2.2.0/24"],"recursive":true}`, "GET /",
			[]string{"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 127.0.0.1"}, "1.1.1.1 0 | 1.1.1.1 | 1.1.1.1, 2.2.2.2, 1.1.1.1"},
		{list + `,"trusted_addresses":["127.0.0.0/8","2.2.2.0/24"],"recursive":true}`, "GET /",
			[]string{"X-Forwarded-For: 8.8.8.8, 1.1.1.1, 2.2.2.2, 2.2.2.3, 127.0.0.1"}, "1.1.1.1 0 | 1.1.1.1 | 8.8.8.8, 1.1.1.1, 2.2.2.2, 2.2.2.3, 1.1.1.1"},
		{list + `,"trusted_addresses":["127.0.0.0/8","2.2.2.0/24"],"recursive":true}`, "GET /",
			[]string{"X-Forwarded-For: 2.2.2.1, 2.2.2.2, 127.0.0.1"}, "2.2.2.1 0 | 2.2.2.1 | 2.2.2.1, 2.2.2.2, 2.2.2.1"},
		{list + `,"trusted_addresses":["127.0.0.0/8","2.2.2.0/24"],"recursive":true}`, "GET /",
			[]string{"X-Forwarded-For: 1.1.1.1, bad, 2.2.2.2, 127.0.0.1"}, "127.0.0.1 40000 | 127.0.0.1 | 1.1.1.1, bad, 2.2.2.2, 127.0.0.1"},
		{list + `,"trusted_addresses":["127.0.0.0/8"]}`, "GET /",
			[]string{"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 127.0.0.1"}, "2.2.2.2 0 | 2.2.2.2 | 1.1.1.1, 2.2.2.2, 2.2.2.2"},
		{list + `,"trusted_addresses":["10.0.0.0/8"]}`, "GET /",
			[]string{"X-Forwarded-For: 1.1.1.1, 127.0.0.1"}, "127.0.0.1 40000 | 127.0.0.1 | 1.1.1.1, 127.0.0.1"},
	}
	for _, tt := range tests {
		lines := append([]string{"X-Real-IP: 127.0.0.1"}, tt.lines...)
		if !strings.HasPrefix(lines[len(lines)-1], "X-Forwarded-For") {
			lines = append(lines, "X-Forwarded-For: 127.0.0.1")
		}
		if got := visit(t, tt.conf, tt.request, lines...); got != tt.want {
			t.Errorf("%s, %s %q\ngot  %s\nwant %s", tt.conf, tt.request, tt.lines, got, tt.want)
		}
	}
}

// Lines that the gateway has not written stay as they are.
func TestForeignLine(t *testing.T) {
	got := visit(t, `{"source":"http_x_client"}`, "GET /", "X-Client: 1.2.3.4", "X-Forwarded-For: 9.9.9.9")
	if want := "1.2.3.4 0 | 1.2.3.4 | 9.9.9.9"; got != want {
		t.Errorf("got %s", got)
	}
}

func FuzzParseClient(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "1.2.3.4:80", "::1", "[::1]:80", "[::1]", ":", "[", "fe80::1%a", "1:2:3:4:5:6:255.255.255.255"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, port, ok := parseClient([]byte(text))
		if !ok {
			return
		}
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			t.Errorf("%q: %v", text, a)
		}
		again := a.String()
		if port > 0 {
			again = "[" + again + "]:" + strconv.Itoa(int(port))
			if a.Is4() {
				again = a.String() + ":" + strconv.Itoa(int(port))
			}
		}
		if b, p, ok := parseClient([]byte(again)); !ok || a != b || p != port {
			t.Errorf("%q: %v %d, again %v %d", text, a, port, b, p)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"source":"http_x_forwarded_for","trusted_addresses":["127.0.0.1"],"recursive":true}`, "1.1.1.1, 2.2.2.2, 127.0.0.1")
	f.Add(`{"source":"http_x-Forwarded_For"}`, ",")
	f.Add(`{"source":"arg_ip"}`, "")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, via string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		if got := visit(t, conf, "GET /?ip=1.2.3.4", "X-Forwarded-For: "+via); strings.Contains(got, "differs") {
			t.Errorf("%s: %s", conf, got)
		}
	})
}

// rounds makes a request that looks the same every time, in the memory of the one before.
func rounds(t testing.TB) func() *phase.Exchange {
	p := (&phasetest.Env{}).Build(t, Kind(),
		`{"source":"http_x_forwarded_for","trusted_addresses":["127.0.0.0/8","2.2.2.0/24"],"recursive":true}`).(phase.Rewriter)
	x := phasetest.Exchange("GET /", "X-Real-IP: 127.0.0.1", "X-Forwarded-For: 2001:db8::1, 2.2.2.2, 127.0.0.1")
	settings, client := x.Settings(), x.Client
	fields := append([]phase.Field(nil), x.Request.Header.Fields()...)
	return func() *phase.Exchange {
		x.Reset()
		x.Begin(settings)
		x.Client = client
		for _, f := range fields {
			x.Request.Header.Add(f.Name, f.Value)
		}
		p.Rewrite(x)
		return x
	}
}

func BenchmarkRewrite(b *testing.B) {
	round := rounds(b)
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
}
