package limit

import (
	"bytes"
	"encoding/json"
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestKeys(t *testing.T) {
	x := phasetest.Exchange("GET /a?q=1", "X-User: jack", "X-Empty: ")
	for _, tt := range []struct{ kind, text, want string }{
		{"", "remote_addr", "127.0.0.1"},
		{"var", "http_x_user", "jack"},
		{"var", "http_x_none", "127.0.0.1"},
		{"var", "consumer_name", "127.0.0.1"},
		{"var", "no such variable", "127.0.0.1"},
		{"var", "http_x_empty", ""},
		{"var_combination", "$http_x_user $arg_q", "jack 1"},
		{"var_combination", "$http_x_none $arg_q", " 1"},
		{"var_combination", "$http_x_none-", "127.0.0.1"},
		{"var_combination", "${http_x_none ?? all}", "all"},
		{"var_combination", "plain", "127.0.0.1"},
		{"constant", "$arg_q", "$arg_q"},
		{"constant", "", ""},
	} {
		k, err := NewKey(tt.kind, tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.AppendOrClient([]byte("<"), x); string(got) != "<"+tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.kind, tt.text, got[1:], tt.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		raw, header string
		want        int64
		ok          bool
	}{
		{`5`, "", 5, true}, {`5.0`, "", 5, true}, {`1e3`, "", 1000, true}, {`9007199254740991`, "", Largest, true},
		{`"7"`, "", 7, true}, {`"x"`, "", 0, false}, {`"$http_x_n"`, "12", 12, true}, {`"${http_x_n ?? 3}"`, "", 3, true},
		{`"$http_x_n"`, " 12 ", 12, true}, {`"$http_x_n"`, "2.0", 2, true}, {`"$http_x_n"`, "1e2", 100, true},
		{`"$http_x_n"`, "", 0, false}, {`"$http_x_n"`, "abc", 0, false}, {`"$http_x_n"`, "0", 0, false}, {`"$http_x_n"`, "-1", -1, false},
		{`"$http_x_n"`, "1.5", 0, false}, {`"$http_x_n"`, "9007199254740992", 0, false}, {`"$http_x_n"`, "1e300", 0, false},
		{`"$http_x_n"`, "99999999999999999999", 0, false}, {`"$http_x_n"`, "NaN", 0, false}, {`"1${http_x_n}"`, "0", 10, true},
	} {
		m, err := Decode([]byte(`{"n":` + tt.raw + `}`))
		if err != nil {
			t.Fatal(err)
		}
		n, err := NewNumber(m["n"])
		if err != nil {
			t.Fatal(err)
		}
		x := phasetest.Exchange("GET /")
		if tt.header != "" {
			x.Request.Header.Add([]byte("X-N"), []byte(tt.header))
		}
		if got, ok := n.Value(x, 1); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s with %q: got %d, %v, want %d, %v", tt.raw, tt.header, got, ok, tt.want, tt.ok)
		}
	}
}

func TestIdentity(t *testing.T) {
	of := func(owner, conf string) Identity {
		i, err := IdentityOf(owner, []byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	base := of("routes/1", `{"count":1,"key":"a"}`)
	if base != of("routes/1", ` {"key":"a", "count":1, "_meta":{"disable":false}}`) {
		t.Error("the form of a configuration matters")
	}
	seen := map[Identity]string{}
	for name, i := range map[string]Identity{
		"base": base, "owner": of("routes/11", `{"count":1,"key":"a"}`), "conf": of("routes/1", `{"count":2,"key":"a"}`),
		"group": IdentityOfGroup("routes/1"), "part 0": base.Part(0), "part 1": base.Part(1), "other": of("services/1", `{"count":1,"key":"a"}`),
	} {
		if seen[i] != "" {
			t.Errorf("%s and %s are the same", name, seen[i])
		}
		seen[i] = name
	}
}

func TestRejections(t *testing.T) {
	for _, tt := range []struct {
		code      int
		msg, want string
	}{
		{429, "slow \"down\" <now>", "429\nContent-Type: text/plain; charset=utf-8\n\n{\"error_msg\":\"slow \\\"down\\\" <now>\"}\n"},
		{599, "", "599\n\n"},
	} {
		r := NewRejection(tt.code, tt.msg)
		x := phasetest.Exchange("GET /")
		if v := r.Answer(x); v != phase.Stop || phasetest.Answer(x) != tt.want {
			t.Errorf("got %v, %q, want %q", v, phasetest.Answer(x), tt.want)
		}
	}
	r := NewRejection(0, "")
	x := phasetest.Exchange("GET /")
	if r.Answer(x); x.Response.Status != 503 || !bytes.Contains(x.Response.Body, []byte("<title>503 Service Temporarily Unavailable</title>")) {
		t.Errorf("got %q", phasetest.Answer(x))
	}
}

func TestPolicies(t *testing.T) {
	if s := WithPolicies([]byte(`[{"$ref": "redis.json"},{"$ref": "redis-cluster.json"}]`)); !json.Valid(s) || bytes.Contains(s, []byte("$ref")) {
		t.Errorf("%s", s)
	}
}

func FuzzKeyAndNumber(f *testing.F) {
	f.Add("$http_x_a-${arg_q ?? 1}", "var_combination", "12")
	f.Add("remote_addr", "var", "-0.0e-1")
	f.Add("$\\$", "constant", " 9007199254740993\t")
	f.Fuzz(func(t *testing.T, text, kind, number string) {
		x := phasetest.Exchange("GET /?q="+number, "X-A: "+number)
		k, err := NewKey(kind, text)
		if err != nil {
			return
		}
		dst := []byte("prefix")
		got := k.AppendOrClient(dst, x)
		if !bytes.HasPrefix(got, dst) {
			t.Errorf("the prefix became %q", got)
		}
		if again := k.AppendOrClient(nil, x); !bytes.Equal(again, got[len(dst):]) {
			t.Errorf("%q, then %q", got[len(dst):], again)
		}
		if kind == "constant" && string(got[len(dst):]) != text {
			t.Errorf("the constant %q became %q", text, got[len(dst):])
		}
		n, err := NewNumber(number)
		if err != nil {
			return
		}
		if v, ok := n.Value(x, 1); ok && (v < 1 || v > Largest) {
			t.Errorf("%q became %d", number, v)
		}
	})
}
