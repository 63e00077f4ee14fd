package phase

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"headgate/proxy/vars"
)

// timed are the variables whose value depends on when they are asked for.
var timed = map[string]string{
	"request_time": `^\d+\.\d{3}$`,
	"request_id":   `^[0-9a-f]{32}$`,
}

func TestEveryVariable(t *testing.T) {
	want := map[string]string{
		"uri": "/a b/", "request_uri": "/a b/?k=v&k=w&e=%41+b&flag", "real_request_uri": "/a%20b/?k=v&k=w&e=%41+b&flag",
		"args": "k=v&k=w&e=%41+b&flag", "is_args": "?", "host": "api.example.com", "hostname": "edge", "http_host": "API.example.com:9080",
		"scheme": "http", "remote_addr": "192.0.2.7", "remote_port": "4711", "server_addr": "198.51.100.1", "server_port": "9080",
		"server_name": "api.example.com", "server_protocol": "HTTP/1.1", "request_method": "POST",
		"request": "POST /a%20b/?k=v&k=w&e=%41+b&flag HTTP/1.1", "request_length": "321", "remote_user": "jack",
		"content_type": "application/x-www-form-urlencoded; charset=utf-8", "content_length": "16", "status": "502",
		"bytes_sent": "42", "body_bytes_sent": "42", "bytes_received": "321", "upstream_addr": "10.0.0.8:8443, 10.0.0.9:8443",
		"upstream_status": "504, 502", "upstream_response_time": "2.000", "upstream_connect_time": "0.010", "upstream_header_time": "1.510",
		"upstream_host": "up.example.com", "upstream_uri": "/v2/chat", "upstream_name": "fake", "balancer_ip": "10.0.0.9", "balancer_port": "8443",
		"branch": "v2", "split": "12:1:7:v2", "fault": "bad_head", "time_local": "09/Mar/2026:08:07:06 -0530", "time_iso8601": "2026-03-09T08:07:06-05:30", "msec": "1773063426.054",
		"consumer_name": "jack", "consumer_group_id": "gold", "route_id": "r1", "route_name": "chat", "service_id": "s7", "service_name": "ai",
		"binary_remote_addr": "\xc0\x00\x02\x07", "https": "", "request_body": "user=J%C3%BC&n=1", "resp_body": "sorry",
		"graphql_name": "Q", "graphql_operation": "query", "graphql_root_fields": "owner, repo",
		"connection_requests": "3", "pid": strconv.Itoa(os.Getpid()), "nginx_version": "3.18.0", "gateway_version": "1.2.3",
	}
	x := sample()
	x.Response.Body = []byte("sorry")
	asking := sample()
	asking.Request.ContentType, asking.Request.Body = []byte("application/json"), []byte(`{"query":"query Q {\n owner { name }\n repo }"}`)
	for id := vars.ID(1); id.String() != ""; id++ {
		name := id.String()
		x := x
		if strings.HasPrefix(name, "graphql_") {
			x = asking
		}
		// Values may be built in the room behind a shorter slice; what stands before it must not suffer.
		buf := append(make([]byte, 0, 256), "kept"...)
		v, ok := x.Var(id, buf[4:4])
		if !ok {
			t.Errorf("$%s has no value", name)
			continue
		}
		if pattern, is := timed[name]; is {
			if !regexp.MustCompile(pattern).Match(v) {
				t.Errorf("$%s is %q", name, v)
			}
		} else if text, known := want[name]; !known || string(v) != text {
			t.Errorf("$%s is %q, want %q", name, v, text)
		}
		if string(buf) != "kept" {
			t.Errorf("$%s wrote over what was there", name)
		}
	}
}

// An exchange of which nothing is known yet must not panic, and says "no value" rather than inventing one.
func TestVariablesOfAnEmptyExchange(t *testing.T) {
	empty := " args content_type content_length http_host remote_user status upstream_addr upstream_status upstream_response_time " +
		"upstream_connect_time upstream_header_time upstream_host upstream_uri upstream_name balancer_ip balancer_port branch split fault consumer_name " +
		"consumer_group_id route_id route_name service_id service_name binary_remote_addr request_body resp_body graphql_name graphql_operation " +
		"graphql_root_fields "
	x := &Exchange{}
	x.Begin(&Settings{})
	for id := vars.ID(1); id.String() != ""; id++ {
		_, ok := x.Var(id, nil)
		if none := strings.Contains(empty, " "+id.String()+" "); ok == none {
			t.Errorf("$%s: has a value: %v", id, ok)
		}
	}
	if v, ok := x.Var(vars.IsArgs, nil); !ok || len(v) != 0 {
		t.Errorf("$is_args is %q, %v", v, ok)
	}
}

func TestVariableFamilies(t *testing.T) {
	x := sample()
	for _, tt := range []struct{ name, want string }{
		{"http_accept", "a"}, {"http_x_tag", "1, 2, 3"}, {"http_host", "API.example.com:9080"}, {"http_none", "-"},
		{"cookie_a", "3"}, {"cookie_b", "5"}, {"cookie_c", "4"}, {"cookie_none", "-"},
		{"arg_k", "v"}, {"arg_e", "A b"}, {"arg_flag", "true"}, {"arg_none", "-"},
		{"uri_param_x", "42"}, {"uri_param_y", "-"},
		{"post_arg_user", "Jü"}, {"post_arg.n", "1"}, {"post_arg_none", "-"}, {"post_arg.none", "-"}, {"cookie", "a=1; b=2; a=3, c=4; b=5"},
		{"sent_http_x_y", "z"}, {"upstream_http_server", "up"}, {"sent_http_none", "-"},
	} {
		v, ok := vars.Parse(tt.name)
		if !ok {
			t.Fatalf("%s is no variable", tt.name)
		}
		got := "-"
		if b, has := v.Value(make([]byte, 0, 64), x); has {
			got = string(b)
		}
		if got != tt.want {
			t.Errorf("$%s is %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPostArgWantsAForm(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/x-www-form-urlencoded": true, "Application/X-WWW-Form-Urlencoded ;charset=utf-8": true,
		"application/x-www-form-urlencodedish": false, "application/json": false, "": false,
	} {
		x := sample()
		x.Request.ContentType = []byte(contentType)
		for _, name := range []string{"_user", ".user"} {
			if _, ok := x.PostArg(name, nil); ok != want {
				t.Errorf("%q: found %s: %v", contentType, name, ok)
			}
		}
	}
}

// Expressions tell the types in a body apart; templates see text.
func TestBodyFields(t *testing.T) {
	x := sample()
	x.Request.ContentType, x.Request.Body = []byte("application/json"), []byte(`{"n":5,"s":"a\"b","on":true,"messages":[{"role":"system"},{"role":"user"}],"tags":["x",7]}`)
	asking := sample()
	asking.Request.ContentType, asking.Request.Body = []byte("application/graphql"), []byte("query Q { owner { name } }")
	for _, tt := range []struct {
		x    *Exchange
		rule string
		want bool
	}{
		{x, `["post_arg.n","==",5]`, true}, {x, `["post_arg.n","==","5"]`, false}, {x, `["post_arg.on","==",true]`, true}, {x, `["post_arg.s","==","a\"b"]`, true},
		{x, `["post_arg.messages[*].role","has","user"]`, true}, {x, `["post_arg.messages[*].role","has","tool"]`, false}, {x, `["post_arg.tags","has",7]`, true},
		{x, `["post_arg_n","==",null]`, true}, {x, `["post_arg.none[*]","==",null]`, true},
		{asking, `["graphql_root_fields","has","owner"]`, true}, {asking, `["graphql_root_fields","has","name"]`, false}, {asking, `["graphql_name","==","Q"]`, true},
		{asking, `["graphql_operation","~=","query"]`, false},
	} {
		var rule any
		if err := json.Unmarshal([]byte(tt.rule), &rule); err != nil {
			t.Fatal(err)
		}
		p, err := CompilePredicate([]any{rule})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.True(tt.x); got != tt.want {
			t.Errorf("%s: %v", tt.rule, got)
		}
		if n := testing.AllocsPerRun(20, func() { p.True(tt.x) }); n != 0 && !raceEnabled {
			t.Errorf("%s allocates %v times", tt.rule, n)
		}
	}
	tpl, err := vars.Compile("${post_arg.messages[*].role} $post_arg.n ${post_arg.s}")
	if err != nil {
		t.Fatal(err)
	}
	if got, n := tpl.Append([]byte("<"), x); string(got) != `<system, user 5 a"b` || n != 3 {
		t.Errorf("%s, %d resolved", got, n)
	}
}

func TestRemoteUser(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for value, want := range map[string]string{
		"Basic " + encode("jo:pass:word"): "jo", "basic  " + encode("jo:") + " ": "jo", "Basic " + encode(":x"): "",
		"Basic " + encode("no colon"): "-", "Basic ***": "-", "Bearer " + encode("a:b"): "-", "Basic": "-", "": "-",
		"Basic " + encode(strings.Repeat("a", maxBasic)+":"): "-",
	} {
		x := &Exchange{}
		x.Request.Header.Add([]byte("authorization"), []byte(value))
		buf := make([]byte, 0, 128)
		got := "-"
		if v, ok := x.Var(vars.RemoteUser, buf); ok {
			got = string(v)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		if strings.Contains(string(buf[:cap(buf)]), "pass") {
			t.Errorf("%q: the password stays in the buffer", value)
		}
	}
}

func TestRequestIDHoldsForTheExchange(t *testing.T) {
	x := &Exchange{}
	first, _ := x.Var(vars.RequestID, nil)
	again, _ := x.Var(vars.RequestID, nil)
	x.Reset()
	next, _ := x.Var(vars.RequestID, nil)
	if string(first) != string(again) || string(first) == string(next) {
		t.Errorf("%s, %s, then %s", first, again, next)
	}
}

func TestLocalTimeFollowsTheClock(t *testing.T) {
	x := &Exchange{}
	zones := []*time.Location{time.UTC, time.FixedZone("", 3600), time.UTC}
	for i := range 3000 { // second by second and inside one, forwards and back
		x.Start = time.Unix(int64(1_700_000_000+i/3-i%2*40), int64(i)).In(zones[i/7%3])
		got, _ := x.Var(vars.TimeLocal, nil)
		if want := x.Start.Format("02/Jan/2006:15:04:05 -0700"); string(got) != want {
			t.Fatalf("step %d: %s, want %s", i, got, want)
		}
	}
	var zero Exchange
	if got, _ := zero.Var(vars.TimeLocal, nil); string(got) != "01/Jan/0001:00:00:00 +0000" {
		t.Errorf("the zero time is %s", got)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000", time.Millisecond - 1: "0.000", time.Millisecond: "0.001", 90 * time.Millisecond: "0.090",
		59999 * time.Millisecond: "59.999", time.Hour: "3600.000", -time.Second: "0.000",
	} {
		if got := appendSeconds([]byte("x"), d); string(got) != "x"+want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func BenchmarkTimeLocal(b *testing.B) {
	for name, offset := range map[string]time.Duration{"same second": 0, "another second": time.Second} {
		b.Run(name, func(b *testing.B) {
			x := &Exchange{Start: time.Now()}
			buf := make([]byte, 0, 64)
			b.ReportAllocs()
			for b.Loop() {
				x.Start = x.Start.Add(offset)
				x.Var(vars.TimeLocal, buf)
			}
		})
	}
}

func TestPostArgsHaveALimit(t *testing.T) {
	x := &Exchange{}
	x.Begin(&Settings{MaxPostArgs: 12})
	x.Request.ContentType = []byte("application/json")
	for body, want := range map[string]string{`{"a":"fits"}`: "fits", `{"a":"fits"} `: ""} {
		x.Request.Body = []byte(body)
		if got, ok := x.PostArg(".a", nil); string(got) != want || ok != (want != "") {
			t.Errorf("%s: %q %v", body, got, ok)
		}
	}
}
