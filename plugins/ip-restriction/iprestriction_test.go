package iprestriction

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
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
	tests := []struct{ conf, want string }{
		{`{"whitelist":["1.1.1.1","10.0.0.0/8","::1","fe80::/32","::ffff:1.2.3.4/120"]}`, ""},
		{`{"blacklist":["0.0.0.0/0"],"message":"x","response_code":404,"unknown":1}`, ""},
		{`{"blacklist":["::/0"],"response_code":403.0}`, ""},
		{`{}`, `value should match only one schema, but matches none`},
		{`{"whitelist":["1.1.1.1"],"blacklist":["2.2.2.2"]}`, `value should match only one schema, but matches both schemas 1 and 2`},
		{`{"whitelist":["1.1.1.1/33"]}`, `property "whitelist" validation failed: failed to validate item 1: object matches none of the required`},
		{`{"whitelist":["1.1.1.1","a.test"]}`, `property "whitelist" validation failed: failed to validate item 2: object matches none of the required`},
		{`{"blacklist":[]}`, `property "blacklist" validation failed: expect array to have at least 1 items`},
		{`{"whitelist":["1.1.1.1"],"response_code":402}`, `property "response_code" validation failed: expected 402 to be at least 403`},
		{`{"whitelist":["1.1.1.1"],"response_code":405}`, `property "response_code" validation failed: expected 405 to be at most 404`},
		{`{"whitelist":["1.1.1.1"],"message":""}`, `property "message" validation failed: string too short, expected at least 1, got 0`},
		{`{"whitelist":["::g/8"]}`, `property "whitelist" validation failed: failed to validate item 1: object matches none of the required`},
		{`{"whitelist":[":::/8"]}`, `invalid ip address: :::/8`},
		{`{"whitelist":["$env://LIST"]}`, `invalid ip address: $env://LIST`},
	}
	for _, tt := range tests {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func instance(t testing.TB, conf string) phase.Instance {
	t.Helper()
	return phase.Instance{Name: "ip-restriction", Plugin: (&phasetest.Env{}).Build(t, Kind(), conf)}
}

const (
	passed  = "200\n\nok"
	refused = "403\nContent-Type: text/plain; charset=utf-8\n\n" + `{"message":"Your IP address is not allowed"}` + "\n"
)

func TestAnswers(t *testing.T) {
	tests := []struct{ conf, client, want string }{
		{`{"whitelist":["127.0.0.0/24"]}`, "127.0.0.9", passed},
		{`{"whitelist":["127.0.0.0/24"]}`, "127.0.1.0", refused},
		{`{"whitelist":["127.0.0.0/24"]}`, "::1", refused},
		{`{"whitelist":["127.0.0.0/24"]}`, "::ffff:127.0.0.1", passed},
		{`{"whitelist":["::ffff:127.0.0.0/120"]}`, "127.0.0.1", passed},
		{`{"whitelist":["0.0.0.0/0"]}`, "255.255.255.255", passed},
		{`{"whitelist":["0.0.0.0/0"]}`, "::", refused},
		{`{"whitelist":["::1","fe80::/32"]}`, "fe80::1", passed},
		{`{"whitelist":["::1","fe80::/32"]}`, "fe80::1%eth0", passed},
		{`{"whitelist":["::1","fe80::/32"]}`, "::1", passed},
		{`{"whitelist":["::1","fe80::/32"]}`, "2001::1", refused},
		{`{"blacklist":["10.1.0.0/16","10.1.2.3"]}`, "10.1.2.3", refused},
		{`{"blacklist":["10.1.0.0/16","10.1.2.3"]}`, "10.2.0.0", passed},
		{`{"blacklist":["10.1.2.3/16"]}`, "10.1.0.0", refused},
		{`{"blacklist":["127.0.0.1"],"message":"say \"no\" to </b>\n","response_code":404}`, "127.0.0.1",
			"404\nContent-Type: text/plain; charset=utf-8\n\n" + `{"message":"say \"no\" to </b>\n"}` + "\n"},
	}
	for _, tt := range tests {
		x := phasetest.Exchange("GET /a")
		x.Client.Addr = netip.MustParseAddr(tt.client)
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, tt.conf)); got != tt.want {
			t.Errorf("%s from %s\ngot  %q\nwant %q", tt.conf, tt.client, got, tt.want)
		}
	}
}

// What has no address is nobody's friend, whichever list there is.
func TestNoAddress(t *testing.T) {
	for _, conf := range []string{`{"whitelist":["0.0.0.0/0","::/0"]}`, `{"blacklist":["1.1.1.1"]}`} {
		x := phasetest.Exchange("GET /a")
		x.Client.Addr = netip.Addr{}
		if got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf)); got != refused {
			t.Errorf("%s: %q", conf, got)
		}
	}
}

// The set must hold what any of its prefixes holds, and nothing else.
func TestNetworksAgainstPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(4)), byte(r.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0: 0xfe, 1: byte(r.IntN(2)), 14: byte(r.IntN(4)), 15: byte(r.IntN(256))})
	}
	for range 50 {
		var list []string
		var prefixes []netip.Prefix
		for range 1 + r.IntN(20) {
			a := random()
			p := netip.PrefixFrom(a, a.BitLen()-r.IntN(13))
			list, prefixes = append(list, p.String()), append(prefixes, p)
		}
		set, err := newNetworks(list)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			a, want := random(), false
			for _, p := range prefixes {
				want = want || p.Contains(a)
			}
			if got := set.contains(a); got != want {
				t.Fatalf("%v in %s: %v", a, list, got)
			}
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, conf := range []string{
		`{"whitelist":["127.0.0.0/8","::ffff:127.0.0.1/100"]}`, `{"blacklist":["::/0","1.2.3.4"],"message":"\u2028","response_code":4.04e2}`,
		`{"whitelist":[1]}`, `[]`, `{"blacklist":["fe80::1%25a/12"]}`,
	} {
		f.Add(conf)
	}
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind().Validate([]byte(conf)) != nil {
			return
		}
		x := phasetest.Exchange("GET /a")
		got := phasetest.Run(x, &phasetest.Env{}, phasetest.Reply(200, "ok"), instance(t, conf))
		if got != passed && !strings.HasPrefix(got, "403\n") && !strings.HasPrefix(got, "404\n") {
			t.Errorf("%s: %q", conf, got)
		}
	})
}

// long is a list of n networks that don't touch.
func long(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d.%d.%d.0/25"`, 11+i>>16, i>>8&255, i&255)
	}
	return `{"whitelist":["127.0.0.1"` + b.String() + `]}`
}

func BenchmarkAccess(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := instance(b, long(n)).Plugin.(phase.Accessor)
			x := phasetest.Exchange("GET /a")
			b.ReportAllocs()
			for b.Loop() {
				p.Access(x)
			}
		})
	}
}
