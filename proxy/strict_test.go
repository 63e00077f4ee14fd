package proxy

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"headgate/proxy/phase/wire"
)

// loosened returns the Lenient whose only field that is set is the i-th, or of which all are.
func loosened(i int) (l Lenient, name string) {
	v := reflect.ValueOf(&l).Elem()
	for n := range v.NumField() {
		v.Field(n).SetBool(i < 0 || n == i)
	}
	if i < 0 {
		return l, "all"
	}
	return l, v.Type().Field(i).Name
}

// strictCase is refused, or loses the line, unless its switch is loosened; then this is what the upstream gets.
type strictCase struct {
	field, name, raw string
	line             string   // the first one
	has              []string // lines
	body             string
}

var strictCases = []strictCase{
	{"BareLF", "one header line", "GET /a HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", "GET /a HTTP/1.1", []string{"B: c"}, ""},
	{"BareLF", "the request line", "GET /a HTTP/1.1\nHost: a\r\n\r\n", "GET /a HTTP/1.1", nil, ""},
	{"BareLF", "all of the head, and a body", "POST /a HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", "POST /a HTTP/1.1", []string{"Content-Length: 3"}, "abc"},
	{"FoldedLines", "a blank and a tab", "GET /a HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\t e\r\n\r\n", "GET /a HTTP/1.1", []string{"B: c d e"}, ""},
	{"FoldedLines", "what looks like framing", "POST /a HTTP/1.1\r\nHost: a\r\nB: c\r\n Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", "POST /a HTTP/1.1",
		[]string{"B: c Transfer-Encoding: chunked", "Content-Length: 3"}, "abc"},
	{"FoldedLines", "nothing more", "GET /a HTTP/1.1\r\nHost: a\r\nB: c\r\n \r\n\r\n", "GET /a HTTP/1.1", []string{"B: c"}, ""},
	{"ControlBytes", "in the middle", "GET /a HTTP/1.1\r\nHost: a\r\nB: c\x1b[31m\x7fd\r\n\r\n", "GET /a HTTP/1.1", []string{"B: c [31m d"}, ""},
	{"ControlBytes", "alone", "GET /a HTTP/1.1\r\nHost: a\r\nB: \x0c\r\n\r\n", "GET /a HTTP/1.1", []string{"B:"}, ""},
	{"RepeatedLength", "lines", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "POST /a HTTP/1.1", []string{"Content-Length: 3"}, "abc"},
	{"RepeatedLength", "a list", "POST /a HTTP/1.1\r\nHost: a\r\ncontent-length:3 ,3, 3\r\n\r\nabc", "POST /a HTTP/1.1", []string{"Content-Length: 3"}, "abc"},
	{"LineSpaces", "two blanks, a tab", "GET  /a\tHTTP/1.1\r\nHost: a\r\n\r\n", "GET /a HTTP/1.1", nil, ""},
	{"LineSpaces", "in front and behind", "\r\n GET /a HTTP/1.1 \r\nHost: a\r\n\r\n", "GET /a HTTP/1.1", nil, ""},
	{"Fragments", "behind a query", "GET /a?b=c#d?e HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=c HTTP/1.1", nil, ""},
	{"Fragments", "with a way up", "GET /a#/../b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a HTTP/1.1", nil, ""},
	{"Fragments", "in absolute form", "GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1", nil, ""},
	{"Methods", "small letters", "report /a HTTP/1.1\r\nHost: a\r\n\r\n", "report /a HTTP/1.1", nil, ""},
	{"Trace", "TRACE", "TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n", "TRACE /a HTTP/1.1", nil, ""},
	{"Expectations", "unknown", "POST /a HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 3\r\n\r\nabc", "POST /a HTTP/1.1", nil, "abc"},
	{"Underscores", "a name", "GET /a HTTP/1.1\r\nHost: a\r\nB_c: d\r\n\r\n", "GET /a HTTP/1.1", []string{"B_c: d"}, ""},
}

func TestStrictSwitches(t *testing.T) {
	up := newBackend(t, says(ok200))
	gates := map[string]*gateRig{"": newGate(t, defaults()).to(up.addr)}
	fields := reflect.TypeFor[Lenient]().NumField()
	for i := -1; i < fields; i++ {
		o := defaults()
		var name string
		o.Lenient, name = loosened(i)
		gates[name] = newGate(t, o).to(up.addr)
		if i >= 0 && !slices.ContainsFunc(strictCases, func(c strictCase) bool { return c.field == name }) {
			t.Errorf("no case shows what %s lets in", name)
		}
	}
	for _, tt := range strictCases {
		t.Run(tt.field+"/"+tt.name, func(t *testing.T) {
			for field, r := range gates {
				reply := r.once(t, tt.raw)
				got := up.take()
				if field != tt.field && field != "all" {
					if len(got) == 0 && strings.HasPrefix(reply, "HTTP/1.1 4") {
						continue
					}
					if tt.field != "Underscores" || len(got) != 1 || strings.Contains(got[0].head, tt.has[0]) {
						t.Errorf("loosened %q: %q passed, answer %.40q", field, got, reply)
					}
					continue
				}
				if len(got) != 1 || got[0].bad != "" || got[0].body != tt.body || !strings.HasPrefix(got[0].head, tt.line+"\r\nHost: a\r\n") {
					t.Fatalf("loosened %q: the upstream got %q, answer %.40q", field, got, reply)
				}
				for _, l := range tt.has {
					name, _, _ := strings.Cut(l, ":")
					if n := len(got[0].has(name)); n != 1 || !slices.ContainsFunc(got[0].lines, func(have string) bool { return strings.TrimRight(have, " ") == l }) {
						t.Errorf("loosened %q: the upstream saw %q instead of %q", field, got[0].lines, l)
					}
				}
			}
		})
	}
}

// TestAlwaysRefused: what no switch lets in, and lines that no switch lets pass.
func TestAlwaysRefused(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.Lenient, _ = loosened(-1)
	r := newGate(t, o).to(up.addr)
	for _, raw := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabcd",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3,\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 03\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\x7f\r\n\r\nabc",
		"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\x0b\r\n\r\n",
		"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
		"GET / HTTP/1.1\r\n B: c\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: \r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB : c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB\r\n : c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\rd\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\x00d\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\x00\r\n\r\n",
		"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
		"GET # HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
		"head / HTTP/1.1\r\nHost: a\r\n\r\n",
		"Trace / HTTP/1.1\r\nHost: a\r\n\r\n",
		"connect a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"g(t / HTTP/1.1\r\nHost: a\r\n\r\n",
		strings.Repeat("a", maxMethod+1) + " / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
	} {
		if reply := r.once(t, raw); !strings.HasPrefix(reply, "HTTP/1.1 4") && !strings.HasPrefix(reply, "HTTP/1.1 505") {
			t.Errorf("%q: %q", raw, reply)
		}
		if got := up.take(); len(got) > 0 {
			t.Errorf("%q passed: %q", raw, got)
		}
	}
	const twins = "X_Consumer_Username: x\r\nX-Real_IP: x\r\nTransfer_Encoding: x\r\nContent_Length: x\r\nHost_: x\r\nKeep_Alive: x\r\nProxy_Authorization: x\r\nContent_Type: x\r\n"
	r.once(t, "GET / HTTP/1.1\r\nHost: a\r\n"+twins+"Own_name: y\r\n\r\n")
	got := up.take()
	if len(got) != 1 || strings.Contains(strings.ReplaceAll(got[0].head, "Host_: x", ""), ": x\r\n") || len(got[0].has("Own_name")) != 1 {
		t.Errorf("the upstream saw %q", got)
	}
}

// TestLenientVectors: no switch, nor all of them, lets anything through that must or should be refused, makes several messages of one, or
// changes a body.
func TestLenientVectors(t *testing.T) {
	for i := -1; i < reflect.TypeFor[Lenient]().NumField(); i++ {
		l, name := loosened(i)
		t.Run(name, func(t *testing.T) {
			up := newBackend(t, says(ok200))
			o := defaults()
			o.MaxHead, o.Lenient = 32<<10, l
			r := newGate(t, o).to(up.addr).route("server", `{"uri":"*","on_client_abort":"finish","upstream":{"nodes":{"`+up.addr+`":1}}}`)
			let := 0
			for _, v := range append(readMessages(t), readVectors[vector](t, "http1-vectors.jsonl")...) {
				if v.Side != "request" {
					continue
				}
				reply := r.once(t, string(v.Raw))
				got := up.take()
				if v.RFC == "may_accept" && len(got) > v.OKBefore {
					let++
					for _, m := range got {
						if m.bad != "" {
							t.Errorf("%s: forwarded: %s", v.Name, m.bad)
						}
					}
					if len(got) > v.OKBefore+1 {
						t.Errorf("%s: one message became %d", v.Name, len(got)-v.OKBefore)
					}
					continue
				}
				if wrong := v.judge(got, reply, false); wrong != "" {
					t.Errorf("%s (%s, %s): %s\n%q", v.Name, v.RFC, v.Why, wrong, v.Raw[:min(len(v.Raw), 400)])
				}
			}
			t.Logf("%d more pass", let)
		})
	}
}

func TestMend(t *testing.T) {
	l, _ := loosened(-1)
	m := newMender(l, 1<<10)
	for in, want := range map[string]string{
		"GET / HTTP/1.1\nA: b\n\n":                       "GET / HTTP/1.1\r\nA: b\r\n\r\n",
		"GET / HTTP/1.1\r\nA: b\n\tc\r\n\r\n":            "GET / HTTP/1.1\r\nA: b c\r\n\r\n",
		"GET / HTTP/1.1\r\nA:\r\n b\r\n\r\n":             "GET / HTTP/1.1\r\nA: b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n b\r\n c\r\n\r\n":  "GET / HTTP/1.1\r\nHost: a\r\n b\r\n c\r\n\r\n",
		"GET / HTTP/1.1\r\nA b: c\r\n d\r\n\r\n":         "GET / HTTP/1.1\r\nA b: c\r\n d\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n": "GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n": "GET / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n",
		"A: b\r\n\r\n":                                         "A: b\r\n\r\n",
		"GET  / b HTTP/1.1\r\n\r\n":                            "GET  / b HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nA: b\r\n\r\n":                       "GET / HTTP/1.1\r\nA: b\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1\r\n 1\r\n\r\n":    "GET / HTTP/1.1\r\nContent-Length: 1\r\n 1\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: +1, +1\r\n\r\n":     "GET / HTTP/1.1\r\nContent-Length: +1, +1\r\n\r\n",
		"GET / HTTP/1.1\r\nA: \x01\x02b\x00\r\nC: d\r\r\n\r\n": "GET / HTTP/1.1\r\nA:   b\x00\r\nC: d\r\r\n\r\n",
	} {
		if got := string(m.mend(nil, []byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	some := newMender(Lenient{RepeatedLength: true, FoldedLines: true}, 1<<10)
	for _, in := range []string{ // what they would take away hides no LF
		"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\n\r\n",
		"GET / HTTP/1.1\r\nA: b\n c\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n c\n\r\n",
	} {
		if got := string(some.mend(nil, []byte(in))); got != in {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// strictHead says whether the gateway takes a head as it is.
func strictHead(head []byte) bool {
	line, rest, ok := wire.CutLine(head)
	if !ok || bytes.Count(line, []byte{' '}) != 2 || bytes.ContainsAny(line, "\t") || line[0] == ' ' || bytes.Contains(line, []byte("  ")) || bytes.HasSuffix(line, []byte{' '}) {
		return false
	}
	return (&edge{maxLines: 1 << 10}).lines(rest, &exchange{}) == nil
}

// FuzzMend: a strict head stays as it is, what was mended needs no mending, and a line end is never lost inside of a line. Where the network
// cuts does not matter.
func FuzzMend(f *testing.F) {
	for i, s := range []string{
		get, "GET / HTTP/1.1\nHost: a\n\n", "GET\t/  HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n", "P / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1, 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nB: \x01\r\n\t\x7f\r\n\r\n", "\r\n GET / HTTP/1.1\r\n Host: a\r\n\n\r\n",
	} {
		f.Add([]byte(s), i+1, uint8(1<<i))
		f.Add([]byte(s), 1, uint8(0xff))
	}
	f.Fuzz(func(t *testing.T, raw []byte, step int, choice uint8) {
		if len(raw) > 2<<10 {
			return
		}
		l := Lenient{BareLF: choice&1 > 0, FoldedLines: choice&2 > 0, ControlBytes: choice&4 > 0, RepeatedLength: choice&8 > 0, LineSpaces: choice&16 > 0}
		m := newMender(l, 4<<10)
		if m == nil {
			return
		}
		gathered := func(step, take int) (head []byte) {
			c := newEdgeConn(&scriptConn{in: &cuts{raw, step}})
			c.in.mode, c.in.mend = atHead, m
			defer func() { c.in.rest = nil; c.in.release(); c.in.dropHeld() }()
			for p := make([]byte, take); c.in.mode == atHead; {
				n, err := c.Read(p)
				if head = append(head, p[:n]...); err != nil {
					return nil
				}
			}
			return head
		}
		head := gathered(len(raw)+1, 8<<10)
		if cut := gathered(max(step&63, 1), max(step>>6&63, 1)); !bytes.Equal(cut, head) {
			t.Fatalf("%q: %q, in pieces %q", raw, head, cut)
		}
		if head == nil {
			return
		}
		if again := m.mend(nil, head); !bytes.Equal(again, head) {
			t.Fatalf("%q: mended to %q, and again to %q", raw, head, again)
		}
		lead := 0
		for lead < len(raw) && m.passes(raw[lead]) {
			lead++
		}
		var scan headScan
		end := scan.end(raw[lead:])
		if end < 0 {
			t.Fatalf("%q has no end, and became %q", raw, head)
		}
		if before := raw[lead : lead+end]; strictHead(before) && !bytes.Equal(before, head) {
			t.Fatalf("%q is strict, and became %q", before, head)
		}
		if !l.BareLF && bytes.Count(head, []byte{'\n'})-bytes.Count(head, []byte(crlf)) < bytes.Count(raw[lead:lead+end], []byte{'\n'})-bytes.Count(raw[lead:lead+end], []byte(crlf)) {
			t.Fatalf("%q: a bare LF was mended in %q", raw, head)
		}
	})
}

func TestAllocMend(t *testing.T) {
	l, _ := loosened(-1)
	request := []byte(strings.ReplaceAll(browser, "\r\n", "\n"))
	src := &cuts{size: 300}
	c := newEdgeConn(&scriptConn{in: src})
	c.in.mend = newMender(l, 16<<10)
	p := make([]byte, 16<<10)
	noAllocs(t, "a head that is mended", func() {
		src.rest, c.in.mode, c.in.scan = request, atHead, headScan{}
		for c.in.mode == atHead {
			if _, err := c.Read(p); err != nil {
				t.Fatal(err)
			}
		}
		c.in.rest = nil
		c.in.release()
	})
}

// TestMendedPipeline: several mended heads on one connection, with a body between them.
func TestMendedPipeline(t *testing.T) {
	up := newBackend(t, says(ok200))
	o := defaults()
	o.Lenient, _ = loosened(-1)
	r := newGate(t, o).to(up.addr)
	c := r.dial(t).say("GET  /a HTTP/1.1\nHost: a\n\nPOST /b HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n\n\n GET /c HTTP/1.1\nHost: a\n\n")
	for range 3 {
		c.want("GET", 200, "ok")
	}
	got := up.take()
	if len(got) != 3 || got[0].target != "/a" || got[1].target != "/b" || got[1].body != "abc" || got[2].target != "/c" {
		t.Errorf("the upstream saw %q", got)
	}
	c.say("GET /d HTTP/1.1\nHost: a\nA: " + strings.Repeat("a", o.MaxHead) + "\n\n")
	c.want("GET", 431, "*")
	c.closed()
}
