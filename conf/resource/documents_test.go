package resource

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"headgate/conf/schema"
)

func TestDecodeRoute(t *testing.T) {
	yes, two := true, 2
	for _, c := range []struct {
		in   string
		want *Route
	}{
		{`{}`, &Route{Status: 1}},
		{`{"id":7.0,"uri":"/a","host":"h","remote_addr":"::1","upstream_id":3,"status":0,"vars":{},"plugins":[],"labels":[],"methods":{}}`,
			&Route{ID: "7", URIs: []string{"/a"}, Hosts: []string{"h"}, RemoteAddrs: []string{"::1"}, UpstreamID: "3"}},
		{`{"id":"r","name":"n","desc":"d","labels":{"a":"b"},"uris":["/a","/b"],"hosts":["x"],"remote_addrs":["1.1.1.1"],"methods":["GET"],
		   "priority":-5,"vars":[["a","==",1.0]],"plugins":{"z":{"b":1.50,"a":[]},"c":[]},"service_id":"s","plugin_config_id":"p",
		   "timeout":{"connect":0.5,"send":1,"read":1e-9},"enable_websocket":true,"on_client_abort":"finish","filter_func":"f","script":"s",
		   "upstream":{"nodes":{"a":1},"retries":2}}`,
			&Route{ID: "r", Name: "n", Desc: "d", Labels: map[string]string{"a": "b"}, URIs: []string{"/a", "/b"}, Hosts: []string{"x"},
				RemoteAddrs: []string{"1.1.1.1"}, Methods: []string{"GET"}, Priority: -5, Vars: json.RawMessage(`[["a","==",1.0]]`), Status: 1,
				Plugins:   []Plugin{plugin("c", `{}`), plugin("z", `{"a":[],"b":1.50}`)},
				ServiceID: "s", PluginConfigID: "p", Timeout: &Timeout{Connect: 500 * time.Millisecond, Send: time.Second, Read: time.Millisecond},
				EnableWebsocket: &yes, FinishAborted: true, FilterFunc: "f", Script: "s",
				Upstream: &Upstream{Type: "roundrobin", HashOn: "vars", Scheme: "http", PassHost: "pass", Retries: &two,
					Nodes: []Node{{Host: "a", Weight: 1}}}}},
	} {
		got, err := DecodeRoute([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s\n%s", c.in, diff)
		}
	}
}

// plugin is a plugin as it is decoded; conf is compact and sorted.
func plugin(name, conf string) Plugin {
	return Plugin{Name: name, Conf: json.RawMessage(conf), Value: Members([]byte(conf))}
}

func TestDecodeService(t *testing.T) {
	no := false
	got, err := DecodeService([]byte(`{"id":"s","hosts":["a"],"enable_websocket":false,"upstream_id":"u","plugins":{"p":{}}}`))
	want := &Service{ID: "s", Hosts: []string{"a"}, EnableWebsocket: &no, UpstreamID: "u", Plugins: []Plugin{plugin("p", `{}`)}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestDecodeUpstream(t *testing.T) {
	yes := true
	defaults := func(u Upstream) *Upstream {
		u.Type, u.HashOn, u.Scheme, u.PassHost = "roundrobin", "vars", "http", "pass"
		return &u
	}
	for _, c := range []struct {
		in   string
		want *Upstream
	}{
		{`{"nodes":{"b:81":2,"a":1,"[::1]:80":3.0,"[::2]":0,"127.0.0.1:abc":1}}`, defaults(Upstream{Nodes: []Node{
			{Host: "127.0.0.1", Weight: 1}, {Host: "::1", Port: 80, Weight: 3}, {Host: "::2"}, {Host: "a", Weight: 1}, {Host: "b", Port: 81, Weight: 2}}})},
		{`{"nodes":[{"host":"b","weight":1},{"host":"[::1]","port":8,"weight":0,"priority":-1}]}`,
			defaults(Upstream{Nodes: []Node{{Host: "b", Weight: 1}, {Host: "::1", Port: 8, Priority: -1}}})},
		{`{"nodes":[]}`, defaults(Upstream{Nodes: []Node{}})},
		{`{"keepalive_pool":{}}`, defaults(Upstream{KeepalivePool: &KeepalivePool{320, time.Minute, 1000}})},
		{`{"keepalive_pool":{"size":1,"idle_timeout":0,"requests":2},"retry_timeout":1.5}`,
			defaults(Upstream{KeepalivePool: &KeepalivePool{1, 0, 2}, RetryTimeout: 1.5})},
		{`{"type":"chash","hash_on":"header","key":"k","scheme":"https","pass_host":"rewrite","upstream_host":"h","id":1,
		   "tls":{"client_cert":"c","client_key":"k","client_cert_id":5,"verify":true},"checks":{"active":{}}}`,
			&Upstream{ID: "1", Type: "chash", HashOn: "header", Key: "k", Scheme: "https", PassHost: "rewrite", UpstreamHost: "h",
				TLS: &TLS{"c", "k", "5", &yes}, Checks: &Checks{Active: plainActive()}}},
	} {
		got, err := DecodeUpstream([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s\n%s", c.in, diff)
		}
	}
}

// Documents that arrive by watch were never validated: the mistake is named, nothing is guessed.
func TestDecodeConsumers(t *testing.T) {
	c, err := DecodeConsumer([]byte(`{"username":"jack","desc":"d","labels":{"custom_id":"7"},"group_id":3,
		"plugins":{"key-auth":{"key":"k"},"cors":[]},"create_time":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Username != "jack" || c.Desc != "d" || c.Labels["custom_id"] != "7" || c.GroupID != "3" || len(c.Plugins) != 2 ||
		c.Plugins[0].Name != "cors" || string(c.Plugins[0].Conf) != "{}" || string(c.Plugins[1].Conf) != `{"key":"k"}` {
		t.Errorf("%+v", c)
	}
	for id, want := range map[string]string{`"c1"`: "c1", `"jack/credentials/c1"`: "c1", `7`: "7"} {
		cred, err := DecodeCredential([]byte(`{"id":` + id + `,"plugins":{"key-auth":{"key":"k"}}}`))
		if err != nil || cred.ID != want || len(cred.Plugins) != 1 {
			t.Errorf("%s: %+v %v", id, cred, err)
		}
	}
	set, err := DecodePluginSet([]byte(`{"id":"g","name":"n","plugins":{"cors":{"max_age":5.0}}}`))
	if err != nil || set.ID != "g" || set.Name != "n" || string(set.Plugins[0].Conf) != `{"max_age":5.0}` {
		t.Errorf("%+v %v", set, err)
	}
	p, err := DecodeProto([]byte(`{"id":"p","content":"x"}`))
	if err != nil || p.ID != "p" || p.Content != "x" {
		t.Errorf("%+v %v", p, err)
	}
	for raw, want := range map[string]string{
		`{"username":5}`:             "username: expected a string",
		`{"plugins":{"a":1}}`:        "plugins.a: expected an object",
		`{"group_id":{}}`:            "group_id: expected a string or an integer",
		`{"labels":{"custom_id":1}}`: "labels.custom_id: expected a string",
	} {
		if _, err := DecodeConsumer([]byte(raw)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`[1]`:                               "the document is not an object",
		`{"uri":1}`:                         "uri: expected a string",
		`{"uris":[1]}`:                      "uris: expected strings",
		`{"priority":"1"}`:                  "priority: expected an integer of at most 53 bits",
		`{"id":true}`:                       "id: expected a string or an integer",
		`{"name":null}`:                     "name: expected a string",
		`{"labels":{"a":1}}`:                "labels.a: expected a string",
		`{"plugins":{"p":1}}`:               "plugins.p: expected an object",
		`{"enable_websocket":1}`:            "enable_websocket: expected true or false",
		`{"timeout":{"connect":1}}`:         "timeout.send: expected a number of seconds",
		`{"upstream":1}`:                    "upstream: expected an object",
		`{"upstream":{"nodes":1}}`:          "upstream.nodes: expected an object or an array",
		`{"upstream":{"nodes":[1]}}`:        "upstream.nodes: item 1 must be an object",
		`{"upstream":{"tls":{"verify":1}}}`: "upstream.tls.verify: expected true or false",
		`{"upstream":{"nodes":[{"host":"a","port":-1,"weight":1}]}}`: "upstream.nodes: invalid port -1",
		`{"upstream":{"nodes":[{"host":"a"}]}}`:                      "upstream.nodes: item 1: the weight must be an integer of 0 to 2^53",
		`{"upstream":{"nodes":{"a:":1}}}`:                            `upstream.nodes: invalid node address "a:"`,
		`{"upstream":{"nodes":{"[::1]x":1}}}`:                        `upstream.nodes: invalid node address "[::1]x"`,
	} {
		if _, err := DecodeRoute([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ old, patch, want string }{
		{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`},
		{`{"a":1}`, `{"a":null}`, `{}`},
		{`{"a":1}`, `{"b":null}`, `{"a":1}`},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"b":null,"d":3}}`, `{"a":{"c":2,"d":3}}`},
		{`{"a":[1,2]}`, `{"a":[3]}`, `{"a":[3]}`},
		{`{"a":{"x:1":1}}`, `{"a":[{"host":"x"}]}`, `{"a":[{"host":"x"}]}`},
		{`{"a":[1]}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{`{"a":{"b":1}}`, `{"a":[]}`, `{"a":[]}`},
		{`{"a":{"b":1}}`, `{"a":{}}`, `{"a":{"b":1}}`},
		{`{"a":"s"}`, `{"a":{"b":1,"c":null}}`, `{"a":{"b":1}}`},
		{`{"a":1}`, `[]`, `{"a":1}`},
		{`{"a":1}`, `{"c":[null]}`, `{"a":1,"c":[null]}`},
	} {
		old, patch := object(t, c.old), any(nil)
		patch, _ = schema.DecodeJSON([]byte(c.patch))
		got, _ := Encode(Merge(old, patch))
		if string(got) != c.want {
			t.Errorf("%s + %s = %s, want %s", c.old, c.patch, got, c.want)
		}
		if raw, _ := Encode(old); string(raw) != c.old {
			t.Errorf("Merge changed %s to %s", c.old, raw)
		}
	}
}

func TestSetPath(t *testing.T) {
	for _, c := range []struct{ doc, path, want string }{ // "!": the error
		{`{"a":1}`, "a", `{"a":"v"}`},
		{`{"labels":{"a":"b"}}`, "labels/new", `{"labels":{"a":"b","new":"v"}}`},
		{`{}`, "x/y/z", `{"x":{"y":{"z":"v"}}}`},
		{`{"x":[]}`, "x/y", `{"x":{"y":"v"}}`},
		{`{"name":"n"}`, "name/x", "!invalid sub-path: /name1x"},
		{`{"a":{"b":1}}`, "a/b/c/d", "!invalid sub-path: /b1c1d"},
		{`{"a":[1]}`, "a/0", "!invalid sub-path: /a10"},
		{`{"a":null}`, "a/b", "!invalid sub-path: /a1b"},
	} {
		doc := object(t, c.doc)
		err := SetPath(doc, strings.Split(c.path, "/"), "v")
		if text, fails := strings.CutPrefix(c.want, "!"); fails {
			if err == nil || err.Error() != text {
				t.Errorf("%s %s: %v", c.doc, c.path, err)
			}
			continue
		}
		if got, _ := Encode(doc); err != nil || string(got) != c.want {
			t.Errorf("%s %s: %s %v", c.doc, c.path, got, err)
		}
	}
	if SetPath(map[string]any{}, nil, 1) == nil {
		t.Error("an empty path was accepted")
	}
}

func TestEncode(t *testing.T) {
	const in = `{"z":1.0,"a":{"e":[],"o":{}},"big":12345678901234567890,"exp":1E5,"s":"a/b<c>&d é \n"}`
	const want = `{"a":{"e":[],"o":{}},"big":12345678901234567890,"exp":1E5,"s":"a/b<c>&d é \n","z":1.0}`
	got, err := Encode(object(t, in))
	if err != nil || string(got) != want {
		t.Errorf("%v\n got  %s\n want %s", err, got, want)
	}
	if _, err := Encode(map[string]any{"a": json.Number("x")}); err == nil {
		t.Error("a number that is none was written")
	}
}

func TestTOML(t *testing.T) {
	for _, c := range []struct{ toml, want string }{ // "!": a part of the error
		{"uri = \"/a\"\npriority = 10\nratio = 1.0\n[upstream.nodes]\n\"127.0.0.1:80\" = 1\n",
			`{"priority":10,"ratio":1.0,"upstream":{"nodes":{"127.0.0.1:80":1}},"uri":"/a"}`},
		{"vars = [[\"arg_a\", \"==\", 1], [\"OR\", [\"b\", \">\", 1.5]]]", `{"vars":[["arg_a","==",1],["OR",["b",">",1.5]]]}`},
		{"[[nodes]]\nhost = \"a\"\n[[nodes]]\nhost = \"b\"", `{"nodes":[{"host":"a"},{"host":"b"}]}`},
		{"a = []\nb = {}", `{"a":[],"b":{}}`},
		{"t = 2020-01-02T03:04:05Z", `{"t":"2020-01-02T03:04:05Z"}`},
		{"s = '''[[[[''' # ]]]\nq = \"\\\"[[\"", `{"q":"\"[[","s":"[[[["}`},
		{"", `{}`},
		{"a = 1\nb = = 2\n", "!line 2, key b: "},
		{"a = 1\na = 2\n", "!line 2, key a: "},
		{"[upstream]\nnodes = {\"a\" = }", "!line 2, key upstream.nodes.a: "},
		{"a = 99999999999999999999", "!line 1, key a: "},
		{"[a]\nb = [1, nan]", "!key a.b.1: JSON has no number NaN"},
		{"x = 1\ny = " + strings.Repeat("[", 1<<20), "!line 2: nested deeper"},
		{strings.Repeat("a.", 20000) + "b = 1", "!line 1: nested deeper"},
		{strings.Repeat("a.", 63) + "b = [[1]]", "!nested deeper"},
		{"s = \"" + strings.Repeat("[a.", 1000) + "\"", `{"s":"` + strings.Repeat("[a.", 1000) + `"}`},
	} {
		doc, err := FromTOML([]byte(c.toml))
		if part, fails := strings.CutPrefix(c.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%.60s: got %v, want %s", c.toml, err, part)
			}
			continue
		}
		if got, _ := Encode(doc); err != nil || string(got) != c.want {
			t.Errorf("%.60s: %v\n got  %s\n want %s", c.toml, err, got, c.want)
		}
	}
}

func TestToTOML(t *testing.T) {
	for _, in := range []string{
		`{}`,
		`{"uri":"/a","vars":[["a","==",1],{"x":[]},[],"s",1.5,true],"plugins":{"p":{"a.b":{"c":[{"d":1},{}]}}},"":{"":1}}`,
		`{"nodes":[{"host":"b","metadata":{"a":{}}},{"host":"a"}],"desc":"\u0001 \" \\ \n é"}`,
		`{"a":[[{"x":[{"y":{"z":1}}]}]],"n":-9223372036854775808,"f":1e300}`,
	} {
		want := object(t, in)
		text, err := ToTOML(want)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := FromTOML(text)
		if err != nil {
			t.Errorf("%s\n%s\n%v", in, text, err)
		} else if diff := cmp.Diff(plain(want), plain(got)); diff != "" {
			t.Errorf("%s\n%s\n%s", in, text, diff)
		}
	}
	if text, err := ToTOML(object(t, `{"a":null,"b":{"c":null}}`)); err != nil || string(text) != "[b]\n" {
		t.Errorf("%q %v", text, err)
	}
	for in, want := range map[string]string{
		`{"a":[1,null]}`:             "key a.1: TOML can't hold a null inside an array",
		`{"a":18446744073709551615}`: "key a: 18446744073709551615 is out of TOML's range for integers",
	} {
		if _, err := ToTOML(object(t, in)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// plain turns numbers into what they mean: an int64, or a float64.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, item := range v {
			if item != nil {
				m[name] = plain(item)
			}
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, item := range v {
			l[i] = plain(item)
		}
		return l
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

func FuzzFromTOML(f *testing.F) {
	for _, s := range []string{"a = 1\n[b]\nc = [1, \"x\", {d = 1.0}]", "[[a]]\nb = '''x'''", "a.b.\"c\" = nan", "t = 07:32:00", "a = \"\\u0000\"", "x = [[]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := FromTOML(text)
		if err != nil {
			return
		}
		raw, err := Encode(doc)
		if err != nil {
			t.Fatalf("%q gives no JSON: %v", text, err)
		}
		if _, err := schema.DecodeJSON(raw); err != nil {
			t.Fatalf("%q gives JSON that is refused: %v", text, err)
		}
		again, err := ToTOML(doc)
		if err != nil {
			t.Fatalf("%q can't be written again: %v", text, err)
		}
		doc2, err := FromTOML(again)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, again, err)
		}
		if raw2, _ := Encode(doc2); string(raw2) != string(raw) {
			t.Fatalf("%q changed into %q", raw, raw2)
		}
	})
}

func FuzzMerge(f *testing.F) {
	for _, s := range [][2]string{{`{"a":{"b":1}}`, `{"a":{"b":null,"c":[1]}}`}, {`{"a":[1]}`, `{"a":{"b":{"c":null}}}`}, {`{}`, `[]`}, {`1`, `{"a":null}`}} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		old, err := schema.DecodeJSON(a)
		if err != nil {
			return
		}
		patch, err := schema.DecodeJSON(b)
		if err != nil {
			return
		}
		before, _ := Encode(old)
		once := Merge(old, patch)
		first, err := Encode(once)
		if err != nil {
			t.Fatal(err)
		}
		if second, _ := Encode(Merge(once, patch)); string(second) != string(first) {
			t.Fatalf("%s + %s: once %s, twice %s", a, b, first, second)
		}
		if after, _ := Encode(old); string(after) != string(before) {
			t.Fatalf("%s + %s changed the old document to %s", a, b, after)
		}
	})
}

func FuzzDecodeUpstream(f *testing.F) {
	for _, s := range []string{
		`{"nodes":{"127.0.0.1:80":1,"[::1]:8":0,"a":2}}`, `{"nodes":[{"host":"a","port":1,"weight":1,"priority":1}]}`,
		`{"nodes":{"::1":1}}`, `{"nodes":{"a:99999":1}}`, `{"nodes":{"]:[":1}}`, `{"timeout":{"connect":1e-300,"send":1,"read":1e300}}`,
		`{"type":"chash","key":"arg_a","nodes":[]}`, `{"keepalive_pool":[],"checks":{"active":[]},"nodes":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		u, err := DecodeUpstream(raw)
		doc, jsonErr := schema.DecodeJSON(raw)
		if obj, ok := doc.(map[string]any); ok && jsonErr == nil {
			if refusal := ValidateUpstream(obj); refusal == nil && err != nil {
				t.Fatalf("%s is valid, but %v", raw, err)
			}
		}
		if err != nil {
			return
		}
		for _, n := range u.Nodes {
			if n.Host == "" || strings.ContainsAny(n.Host, "[]\r\n /@") || n.Port < 0 || n.Port > 65535 || n.Weight < 0 {
				t.Fatalf("%s: node %+v", raw, n)
			}
		}
		if u.Timeout != nil && min(u.Timeout.Connect, u.Timeout.Send, u.Timeout.Read) < time.Millisecond {
			t.Fatalf("%s: %+v", raw, *u.Timeout)
		}
	})
}
