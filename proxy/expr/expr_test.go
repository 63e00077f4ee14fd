package expr

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// request is what tests evaluate against: variables by name, absent ones missing.
type request map[string]string

func resolveRequest(name string) Getter[request] {
	return func(dst []byte, src request) ([]byte, Kind) {
		v, ok := src[name]
		if !ok {
			return dst, None
		}
		return append(dst, v...), Text
	}
}

// textOf is the getter of a source that is one text; an empty one is absent.
func textOf(dst []byte, src string) ([]byte, Kind) {
	if src == "" {
		return dst, None
	}
	return append(dst, src...), Text
}

func decode(t testing.TB, text string, useNumber bool) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	if useNumber {
		d.UseNumber()
	}
	var raw any
	if err := d.Decode(&raw); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return raw
}

func mustCompile(t testing.TB, text string) *Expr[request] {
	t.Helper()
	e, err := Compile(decode(t, text, false), resolveRequest)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

func TestEval(t *testing.T) {
	k := func(v string) request { return request{"arg_k": v} }
	none := request{}
	ab := func(pairs ...string) request {
		r := request{}
		for i := 0; i < len(pairs); i += 2 {
			r["arg_"+pairs[i]] = pairs[i+1]
		}
		return r
	}
	for _, c := range []struct {
		rule    string
		yes, no []request
	}{
		{`[]`, []request{none, k("v")}, nil},
		{`{}`, []request{none}, nil},

		// equality
		{`[["arg_k","==","v"]]`, []request{k("v")}, []request{k("x"), k(""), none}},
		{`[["arg_k","==",""]]`, []request{k("")}, []request{k("true"), none}},
		{`[["arg_k","==",5]]`, []request{k("5"), k("5.0"), k(" +5 "), k("0x5"), k("50e-1")}, []request{k("abc"), k(""), k("5a"), k("5_0"), none}},
		{`[["arg_k","==","5"]]`, []request{k("5")}, []request{k("5.0"), none}},
		{`[["arg_k","==",-1.5]]`, []request{k("-1.5"), k("-15e-1")}, []request{k("1.5")}},
		{`[["arg_k","==",true]]`, nil, []request{k("true"), k("1"), none}},
		{`[["arg_k","==",null]]`, []request{none}, []request{k(""), k("null")}},
		{`[["arg_k","==",["v"]]]`, nil, []request{k("v"), none}},
		{`[["arg_k","=="]]`, []request{none}, []request{k("")}},
		{`[["arg_k","~=","v"]]`, []request{k("x"), none}, []request{k("v")}},
		{`[["arg_k","~=",5]]`, []request{k("abc"), k("6"), none}, []request{k("5"), k("5.0")}},
		{`[["arg_k","~=",null]]`, []request{k("")}, []request{none}},
		{`[["arg_k","~=",true]]`, []request{k("true"), none}, nil},

		// order
		{`[["arg_k",">",10]]`, []request{k("11"), k("1e2"), k("10.5")}, []request{k("10"), k("x"), k("9"), k("inf"), k("nan"), none}},
		{`[["arg_k",">=",10]]`, []request{k("11"), k("10")}, []request{k("9.99"), none}},
		{`[["arg_k","<",10]]`, []request{k("9"), k("-1"), k(".5")}, []request{k("10"), k("."), k("-"), k("-inf"), none}},
		{`[["arg_k","<=",10]]`, []request{k("9"), k("10")}, []request{k("11"), k("1e999"), none}},
		{`[["arg_k",">","10"]]`, []request{k("11")}, []request{k("9"), none}},
		{`[["arg_k",">","x"]]`, nil, []request{k("11"), k("x"), none}},
		{`[["arg_k","<",null]]`, nil, []request{k("11"), none}},
		{`[["arg_k",">",0]]`, []request{k("0xff"), k("0XA"), k("1.")}, []request{k("-0x1"), k("0x"), k("0xg"), k("1e"), k("1e+"), k("--1"), k("1 2")}},

		// patterns
		{`[["arg_k","~~","^[a-z]+$"]]`, []request{k("abc"), k("abc\n")}, []request{k("ABC"), k("ab1"), k("abc\n\n"), none}},
		{`[["arg_k","~~","b"]]`, []request{k("abc")}, []request{k("ac")}},
		{`[["arg_k","~*","^abc$"]]`, []request{k("ABC"), k("aBc")}, []request{k("abd"), none}},
		{`[["arg_k","~~","^/(?!b)"]]`, []request{k("/a"), k("/")}, []request{k("/b"), none}},
		{`[["arg_k","~*","^/(?!b)c"]]`, []request{k("/C")}, []request{k("/B")}},
		{`[["arg_k","~~","^(.)\\1$"]]`, []request{k("aa")}, []request{k("ab")}},
		{`[["arg_k","~~","(?P<n>a)(?=b)"]]`, []request{k("ab")}, []request{k("a")}},
		{`[["arg_k","~~","(["]]`, nil, []request{k("x"), k("(["), none}},
		{`[["arg_k","!","~~","(["]]`, []request{k("x"), none}, nil},
		{`[["arg_k","~~",5]]`, []request{k("15")}, []request{k("1")}},
		{`[["arg_k","~~",null]]`, nil, []request{k("nil"), k(""), none}},
		{`[["arg_k","~~",""]]`, []request{k(""), k("x")}, []request{none}},

		// lists
		{`[["arg_k","in",["x","y"]]]`, []request{k("x"), k("y")}, []request{k("z"), k(""), none}},
		{`[["arg_k","in","xyz"]]`, nil, []request{k("x"), k("xyz"), none}},
		{`[["arg_k","in",[1,null,true]]]`, nil, []request{k("1"), k("true"), none}},
		{`[["arg_k","in",[]]]`, nil, []request{k(""), none}},
		{`[["arg_k","in",["0","1","2","3","4","5","6","7","8","9"]]]`, []request{k("0"), k("9")}, []request{k("10"), none}},
		{`[["arg_k","has","x"]]`, nil, []request{k("x"), k("y"), none}},

		// addresses
		{`[["arg_k","ipmatch",["127.0.0.0/8","10.0.0.1"]]]`, []request{k("127.0.0.1"), k("127.9.9.9"), k("10.0.0.1"), k("::ffff:10.0.0.1")},
			[]request{k("10.0.0.2"), k("127.0.0"), k("127.0.0.1 "), k("localhost"), k("127.0.0.256"), k(""), none}},
		{`[["arg_k","ipmatch","10.1.2.3/8"]]`, []request{k("10.200.0.1")}, []request{k("11.0.0.1"), k("::1")}},
		{`[["arg_k","ipmatch",["::1","fe80::/32"]]]`, []request{k("::1"), k("0:0::1"), k("FE80::abcd")}, []request{k("::2"), k("fe80::1%eth0"), k("127.0.0.1")}},
		{`[["arg_k","ipmatch","::ffff:10.0.0.0/104"]]`, []request{k("10.1.1.1")}, []request{k("11.1.1.1")}},
		{`[["arg_k","ipmatch","0.0.0.0/0"]]`, []request{k("8.8.8.8")}, []request{k("::1")}},
		{`[["arg_k","ipmatch",[]]]`, nil, []request{k("127.0.0.1")}},

		// negation
		{`[["arg_k","!","==","v"]]`, []request{k("x"), none}, []request{k("v")}},
		{`[["arg_k","!","in",["x","y"]]]`, []request{k("z"), none}, []request{k("x")}},
		{`[["arg_k","!",">",10]]`, []request{k("10"), k("x"), none}, []request{k("11")}},
		{`[["arg_k","!","has","x"]]`, []request{k("x"), none}, nil},
		{`[["arg_k","!","IN",["x"]]]`, []request{k("z")}, []request{k("x")}},

		// short and long leaves
		{`[["arg_a","1"]]`, []request{ab("a", "1")}, []request{ab("a", "2"), none}},
		{`[["arg_a",1]]`, []request{ab("a", "1")}, []request{ab("a", "2"), none}},
		{`[["arg_a","==","1","x","y"]]`, []request{ab("a", "1")}, []request{none}},
		{`[["unknown","==","1"]]`, nil, []request{none}},

		// logic
		{`[["arg_a","==","1"],["arg_b","==","2"]]`, []request{ab("a", "1", "b", "2")}, []request{ab("a", "1"), ab("b", "2")}},
		{`["AND",["arg_a","==","1"],["arg_b","==","2"]]`, []request{ab("a", "1", "b", "2")}, []request{ab("a", "1"), ab("b", "2")}},
		{`["OR",["arg_a","==","1"],["arg_b","==","2"]]`, []request{ab("a", "1"), ab("b", "2")}, []request{none}},
		{`["or",["arg_a","==","1"],["arg_b","==","2"]]`, []request{ab("a", "1"), ab("b", "2")}, []request{none}},
		{`["!OR",["arg_a","==","1"],["arg_b","==","2"]]`, []request{ab("c", "1"), none}, []request{ab("a", "1"), ab("b", "2")}},
		{`["!and",["arg_a","==","1"],["arg_b","==","2"]]`, []request{ab("a", "1"), none}, []request{ab("a", "1", "b", "2")}},
		{`[["arg_a","==","1"],["OR",["arg_b","==","2"],["AND",["arg_c","==","3"],["arg_d","==","4"]]]]`,
			[]request{ab("a", "1", "b", "2"), ab("a", "1", "c", "3", "d", "4")}, []request{ab("a", "1", "c", "3"), ab("b", "2")}},
		{`["OR",["!OR",["arg_a","==","1"],["arg_b","==","2"]],["arg_b","==","2"]]`, []request{none, ab("b", "2")}, []request{ab("a", "1")}},
		{`["AND",[["arg_a","==","1"],["arg_b","==","2"]],["!AND",["arg_c","==","3"],["arg_d","==","4"]]]`,
			[]request{ab("a", "1", "b", "2"), ab("a", "1", "b", "2", "c", "3")}, []request{ab("a", "1", "b", "2", "c", "3", "d", "4"), ab("a", "1")}},
		{`[[["arg_a","==","1"]]]`, []request{ab("a", "1")}, []request{none}},
	} {
		for _, useNumber := range []bool{false, true} {
			e, err := Compile(decode(t, c.rule, useNumber), resolveRequest)
			if err != nil {
				t.Errorf("%s: %v", c.rule, err)
				continue
			}
			var scratch Scratch
			for _, r := range c.yes {
				if !e.Eval(r, &scratch) {
					t.Errorf("%s doesn't hold for %q", c.rule, r)
				}
			}
			for _, r := range c.no {
				if e.Eval(r, &scratch) {
					t.Errorf("%s holds for %q", c.rule, r)
				}
			}
		}
	}
}

func TestErrors(t *testing.T) {
	deep := strings.Repeat("[", 100) + `["a","==","b"]` + strings.Repeat("]", 100)
	for _, c := range []struct{ rule, want string }{
		{`null`, "missing argument rule"},
		{`"x"`, "rule should be wrapped inside brackets"},
		{`5`, "rule should be wrapped inside brackets"},
		{`{"a":1}`, "rule should be wrapped inside brackets"},
		{`["x"]`, "rule should be wrapped inside brackets"},
		{`[5]`, "rule should be wrapped inside brackets"},
		{`[null]`, "rule should be wrapped inside brackets"},
		{`["arg_a","==","1"]`, "rule should be wrapped inside brackets"},
		{`[["arg_a","=","1"]]`, "invalid operator '='"},
		{`[[["a","=","b"]]]`, "invalid operator '='"},
		{`[["arg_a","FOO","1"]]`, "invalid operator 'foo'"},
		{`[["arg_a",5,"1"]]`, "invalid operator '5'"},
		{`[["arg_a","!","1"]]`, "invalid operator '!'"},
		{`[["arg_a","!","=","1"]]`, "invalid operator '='"},
		{`[["arg_a"]]`, "invalid expression"},
		{`[["arg_a",null]]`, "invalid expression"},
		{`[["arg_a",["x"]]]`, "invalid expression"},
		{`[["arg_a",null,"x"]]`, "invalid expression"},
		{`[["arg_a","==","1"],"x"]`, "invalid expression"},
		{`[[null,"==","1"]]`, "invalid expression"},
		{`[["!","arg_k","==","1"]]`, "bad 'not' expression"},
		{`[["arg_k","==","1","x"]]`, "bad 'not' expression"},
		{`[[]]`, "rule too short"},
		{`[["arg_a","==","1"],[]]`, "rule too short"},
		{`["OR"]`, "rule too short"},
		{`["OR",["arg_weight",">",10]]`, "rule too short"},
		{`["OR",["arg_weight",">",10],["AND"]]`, "rule too short"},
		{`[["remote_addr","ipmatch","300.1.1.1"]]`, "invalid ip address: 300.1.1.1"},
		{`[["remote_addr","ipmatch",["127.0.0.1","10.0.0.0/33"]]]`, "invalid ip address: 10.0.0.0/33"},
		{`[["remote_addr","ipmatch",5]]`, "invalid ip address: 5"},
		{`[["remote_addr","ipmatch"]]`, "invalid expression"},
		{deep, "rule nested too deeply"},
	} {
		_, err := Compile(decode(t, c.rule, false), resolveRequest)
		if err == nil || err.Error() != c.want {
			t.Errorf("Compile(%s): %v, want %s", c.rule, err, c.want)
		}
		if err := Validate(decode(t, c.rule, true)); err == nil || err.Error() != c.want {
			t.Errorf("Validate(%s): %v, want %s", c.rule, err, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, rule := range []string{`[]`, `{}`, `[["arg_a","1"]]`, `[["arg_a","in","x"]]`, `[["arg_a","~~","(["]]`, `["or",["a","b"],["c","d"]]`} {
		if err := Validate(decode(t, rule, true)); err != nil {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// Documents from TOML bring integers.
func TestIntegerLiterals(t *testing.T) {
	e, err := Compile([]any{[]any{"status", "==", int64(200)}, []any{"status", "<", 300}}, resolveRequest)
	if err != nil {
		t.Fatal(err)
	}
	if !e.Eval(request{"status": "200"}, &Scratch{}) || e.Eval(request{"status": "201"}, &Scratch{}) {
		t.Error("an integer literal doesn't compare as a number")
	}
}

func TestAlways(t *testing.T) {
	if !mustCompile(t, `[]`).Always() || mustCompile(t, `[["a","==","b"]]`).Always() {
		t.Error("Always is wrong")
	}
}

// Values out of a body have types: operators compare them strictly, as a Lua table would.
func TestTypedValues(t *testing.T) {
	type value struct {
		kind Kind
		text string
	}
	list := value{List, string(AppendItem(AppendItem(AppendItem(AppendItem(nil, Text, []byte("a")), Number, []byte("5.0")), Bool, []byte("true")), Opaque, []byte("null")))}
	values := map[string]value{
		"five": {Number, "5.0"}, "text": {Text, "5"}, "yes": {Bool, "true"}, "no": {Bool, "false"}, "null": {Opaque, "null"}, "list": list, "empty": {List, ""},
	}
	for rule, want := range map[string]string{
		`["==",5]`: "five text", `["==","5"]`: "text", `["==","5.0"]`: "", `["==",true]`: "yes", `["==",false]`: "no", `["==","true"]`: "", `["==",null]`: "none",
		`["~=",5]`: "yes no null list empty none", `["~=",true]`: "five text no null list empty none", `["~=",null]`: "five text yes no null list empty",
		`[">",4]`: "five text", `["<=","5"]`: "five text", `[">",0]`: "five text",
		`["~~","^5"]`: "five text", `["~~","^true$"]`: "yes", `["~~",""]`: "five text yes no",
		`["in",["5"]]`: "text", `["in",[5]]`: "five", `["in",[true,null]]`: "yes",
		`["has","a"]`: "list", `["has",5]`: "list", `["has",true]`: "list", `["has","5.0"]`: "", `["has",false]`: "", `["has",null]`: "", `["has",["a"]]`: "",
		`["ipmatch","0.0.0.0/0"]`: "",
	} {
		got := ""
		for _, name := range strings.Fields("five text yes no null list empty none") {
			raw := append([]any{name}, decode(t, rule, false).([]any)...)
			e, err := Compile([]any{raw}, func(name string) Getter[struct{}] {
				return func(dst []byte, _ struct{}) ([]byte, Kind) {
					return append(dst, values[name].text...), values[name].kind
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			var scratch Scratch
			if e.Eval(struct{}{}, &scratch); e.Eval(struct{}{}, &scratch) {
				got += " " + name
			}
			if n := testing.AllocsPerRun(10, func() { e.Eval(struct{}{}, &scratch) }); n != 0 && !raceEnabled {
				t.Errorf("%s of %s allocates %v times", rule, name, n)
			}
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("%s holds for %q, want %q", rule, got, want)
		}
	}
}

func TestJoined(t *testing.T) {
	list := AppendItem(AppendItem(AppendItem(nil, Text, []byte("a")), Opaque, nil), Number, []byte("7"))
	if got := string(Joined(list)); got != "a, , 7" {
		t.Errorf("%q", got)
	}
}

// A nil getter, and no resolver at all, mean that the variable has no value.
func TestUnresolved(t *testing.T) {
	raw := decode(t, `[["a","==",null],["b","~=","x"]]`, false)
	for _, resolve := range []func(string) Getter[request]{nil, func(string) Getter[request] { return nil }} {
		e, err := Compile(raw, resolve)
		if err != nil {
			t.Fatal(err)
		}
		if !e.Eval(request{"a": "1", "b": "x"}, &Scratch{}) {
			t.Error("an unresolved variable has a value")
		}
	}
}

// A getter may lend its own memory: evaluation must neither write to it nor hand it to the next getter.
func TestBorrowedValue(t *testing.T) {
	type lender struct{ a, b []byte }
	resolve := func(name string) Getter[*lender] {
		if name == "a" {
			return func(_ []byte, src *lender) ([]byte, Kind) { return src.a, Text }
		}
		return func(dst []byte, src *lender) ([]byte, Kind) { return append(dst, src.b...), Text }
	}
	e, err := Compile(decode(t, `[["a","~~","^a+$"],["b","==","bbb"],["a","~~","^a+$"]]`, false), resolve)
	if err != nil {
		t.Fatal(err)
	}
	src := &lender{a: []byte(strings.Repeat("a", 1000)), b: []byte("bbb")}
	var scratch Scratch
	for range 3 {
		if !e.Eval(src, &scratch) {
			t.Fatal("doesn't hold")
		}
	}
	if string(src.a) != strings.Repeat("a", 1000) {
		t.Error("borrowed memory was written to")
	}
}

func TestScratchIsBounded(t *testing.T) {
	e := mustCompile(t, `[["arg_k","==","v"]]`)
	var scratch Scratch
	e.Eval(request{"arg_k": strings.Repeat("x", maxScratch+1)}, &scratch)
	if cap(scratch.buf) > 2*maxScratch {
		t.Errorf("scratch keeps %d bytes", cap(scratch.buf))
	}
}

// Under the race detector sync.Pool, which package regexp relies on, forgets things on purpose.
func TestAllocs(t *testing.T) {
	src := request{"arg_k": "abc", "arg_n": "12.5", "remote_addr": "10.0.0.1", "uri": "/" + strings.Repeat("long", 200)}
	for _, rule := range []string{
		`[["arg_k","==","abc"],["arg_k","~=","x"],["arg_x","==",null]]`,
		`[["arg_n","==",12.5],["arg_n",">",1],["arg_k","!",">",1]]`,
		`[["arg_k","~~","^[a-z]+$"],["arg_k","~*","^A.*C$"],["uri","~~","(long)+"]]`,
		`[["arg_k","in",["x","abc"]],["arg_k","in",["0","1","2","3","4","5","6","7","8","abc"]]]`,
		`[["remote_addr","ipmatch",["192.168.0.0/16","10.0.0.0/8"]],["arg_k","!","ipmatch","::1"],["uri","!","ipmatch","::1"]]`,
		`["OR",["arg_k","==","x"],["!AND",["arg_k","==","abc"],["arg_n","==","x"]]]`,
	} {
		e := mustCompile(t, rule)
		var scratch Scratch
		held := true
		if n := testing.AllocsPerRun(100, func() { held = e.Eval(src, &scratch) && held }); n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", rule, n)
		}
		if !held {
			t.Errorf("%s doesn't hold", rule)
		}
	}
}

func BenchmarkEval(b *testing.B) {
	src := request{"arg_k": "abc", "arg_n": "12.5", "remote_addr": "10.0.0.1"}
	for _, c := range []struct{ name, rule string }{
		{"equal", `[["arg_k","==","abc"]]`},
		{"number", `[["arg_n",">",1]]`},
		{"regex", `[["arg_k","~~","^[a-z]+$"]]`},
		{"backtrack", `[["arg_k","~~","^(?!x)[a-z]+$"]]`},
		{"ipmatch", `[["remote_addr","ipmatch",["192.168.0.0/16","10.0.0.0/8"]]]`},
	} {
		b.Run(c.name, func(b *testing.B) {
			e := mustCompile(b, c.rule)
			var scratch Scratch
			b.ReportAllocs()
			for b.Loop() {
				e.Eval(src, &scratch)
			}
		})
	}
}

// parseAddr is netip.ParseAddr without zones.
func FuzzParseAddr(f *testing.F) {
	for _, seed := range []string{"127.0.0.1", "0.0.0.0", "01.2.3.4", "1.2.3", "1.2.3.4.", "256.1.1.1", "::", "::ffff:1.2.3.4", "fe80::1%eth0", ":", "1000.1.1.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := parseAddr([]byte(value))
		want, err := netip.ParseAddr(value)
		if valid := err == nil && want.Zone() == ""; ok != valid || ok && got != want.Unmap() {
			t.Fatalf("%q: %v, %v; netip says %v, %v", value, got, ok, want, err)
		}
	})
}

// parseNumber is strconv.ParseFloat without its words and underscores, with hexadecimal integers instead of hexadecimal fractions.
func FuzzParseNumber(f *testing.F) {
	for _, seed := range []string{"5", "-5.0", "+.5", "5.", ".", "1e3", "1E-3", "1e", "0x1f", "-0X1F", "0x1p4", "0x", "1_000", "inf", "nan", "1e999", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := parseNumber([]byte(value))
		if strings.ContainsAny(value, "xX") {
			return
		}
		trimmed := strings.Trim(value, " \t\n\v\f\r")
		want, err := strconv.ParseFloat(trimmed, 64)
		valid := (err == nil || errors.Is(err, strconv.ErrRange)) && !strings.ContainsAny(trimmed, "_nN")
		if ok != valid || ok && got != want {
			t.Fatalf("%q: %v, %v; strconv says %v, %v", value, got, ok, want, err)
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`[]`, `{}`, `null`, `"x"`, `[["arg_k","==","v"]]`, `[["arg_k","!","in",["x",1]]]`, `["!OR",["a",">",1],["b","~*","^A$"]]`,
		`[["remote_addr","ipmatch",["10.0.0.0/8","::1"]]]`, `[["k","~~","(?<=a)(b|c)+$"]]`, `[["k","has",null],[["a",5]]]`, `[[[]]]`,
	} {
		f.Add(seed, "value")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		var raw any
		if json.Unmarshal([]byte(text), &raw) != nil {
			return
		}
		e, err := Compile(raw, func(string) Getter[string] {
			return textOf
		})
		if invalid := Validate(raw); (err == nil) != (invalid == nil) {
			t.Fatalf("Compile: %v, Validate: %v", err, invalid)
		}
		if err != nil {
			return
		}
		e.Eval(value, &Scratch{})
		// Turned round, a rule holds exactly when it did not.
		twin := []any{"!AND", raw, raw}
		if list, ok := raw.([]any); !ok || len(list) == 0 || strings.Contains(text, "~") {
			return // an empty rule can't be nested; a pattern may run out of time once and not again
		}
		not, err := Compile(twin, func(string) Getter[string] {
			return textOf
		})
		if err != nil {
			if err == errTooDeep {
				return
			}
			t.Fatalf("nested: %v", err)
		}
		if e.Eval(value, &Scratch{}) == not.Eval(value, &Scratch{}) {
			t.Fatalf("%s: the rule and its negation agree on %q", text, value)
		}
	})
}
