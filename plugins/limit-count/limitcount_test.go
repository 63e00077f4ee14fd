package limitcount

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/limit/redis"
	"headgate/proxy/phase/phasetest"
)

const second = int64(1e9)

// rig is the plugin with a clock that the test turns.
type rig struct {
	*counters
	now  int64
	envs map[string]*phasetest.Env
}

func newRig() *rig {
	r := &rig{now: 1000 * second, envs: map[string]*phasetest.Env{}}
	r.counters = newCounters(redis.MaxWait)
	r.clock = func() int64 { return r.now }
	return r
}

// build compiles conf as the configuration of owner.
func (r *rig) build(t testing.TB, owner, conf string) *plugin {
	t.Helper()
	e := r.envs[owner]
	if e == nil {
		e = &phasetest.Env{OwnerKey: owner}
		r.envs[owner] = e
	}
	return e.Build(t, r.kind(), conf).(*plugin)
}

// visit sends a request and tells status and quota: "200 2 1 60".
func visit(t testing.TB, p *plugin, request string, lines ...string) string {
	t.Helper()
	x := phasetest.Exchange(request, lines...)
	var e phasetest.Env
	phasetest.Run(x, &e, phasetest.Reply(200, ""), phase.Instance{Plugin: p})
	return quota(x)
}

func quota(x *phase.Exchange) string {
	out := fmt.Sprint(x.Response.Status)
	for _, l := range x.Response.Header.Fields() {
		if name := string(l.Name); name != "Content-Type" {
			out += " " + string(l.Value)
		}
	}
	return out
}

func refusal(t testing.TB, s *schema.Schema, conf string) string {
	t.Helper()
	doc, err := schema.DecodeJSON([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	if err = s.Validate(doc); err == nil {
		err = Kind(nil).Validate([]byte(conf))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func compiled(t testing.TB) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(Kind(nil).Name, Kind(nil).Schema, resource.SchemaRefs()...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The texts are those of the contract's recorded answers.
func TestRefusals(t *testing.T) {
	s := compiled(t)
	const noMatch = "value should match only one schema, but matches none"
	for _, tt := range []struct{ conf, want string }{
		{`{"count":1,"time_window":1}`, ""},
		{`{"count":"1","time_window":"${arg_w ?? 60}"}`, ""},
		{`{"count":1.0,"time_window":60,"group":"a","window_type":"sliding","key_type":"constant","key":"x"}`, ""},
		{`{"rules":[{"count":1,"time_window":1,"key":"$a"},{"count":1,"time_window":1,"key":"$b","header_prefix":"B"}]}`, ""},
		{`{"count":1,"time_window":1,"policy":"redis","redis_host":"127.0.0.1","sync_interval":-1}`, ""},
		{`{"count":1,"time_window":1,"policy":"redis-cluster","redis_cluster_nodes":["127.0.0.1:1"],"redis_cluster_name":"c"}`, ""},
		{`{"count":1,"time_window":1,"policy":"redis-sentinel","redis_sentinels":[{"host":"127.0.0.1","port":1}],"redis_master_name":"m"}`, ""},
		{`{"count":1,"time_window":1,"sync_interval":0.01}`, ""}, // is for redis
		{`{"count":1,"time_window":1,"policy":"redis","redis_host":"127.0.0.1","degradation":"local"}`, ""},
		{`{"count":1,"time_window":1,"degradation":"open"}`, `property "degradation" validation failed: matches none of the enum values`},
		{`{"count":0,"time_window":1}`, `property "count" validation failed: ` + noMatch},
		{`{"count":-1,"time_window":1}`, `property "count" validation failed: ` + noMatch},
		{`{"count":1.5,"time_window":1}`, `property "count" validation failed: ` + noMatch},
		{`{"count":1,"time_window":0}`, `property "time_window" validation failed: ` + noMatch},
		{`{"count":1,"time_window":1,"key_type":"x"}`, `property "key_type" validation failed: matches none of the enum values`},
		{`{"count":1,"time_window":1,"window_type":"x"}`, `property "window_type" validation failed: matches none of the enum values`},
		{`{"count":1,"time_window":1,"rejected_code":600}`, `property "rejected_code" validation failed: expected 600 to be at most 599`},
		{`{"count":1,"time_window":1,"policy":"redis"}`, `then clause did not match`},
		{`{"count":1,"time_window":1,"policy":"redis-cluster"}`, `else clause did not match`},
		{`{"count":1,"time_window":1,"policy":"redis-sentinel"}`, `else clause did not match`},
		{`{}`, noMatch},
		{`{"count":1}`, noMatch},
		{`{"group":"a","rules":[{"count":1,"time_window":1,"key":"a"}]}`, `group and rules cannot be specified at the same time`},
		{`{"count":1,"time_window":1,"rules":[{"count":1,"time_window":1,"key":"a"}]}`,
			`count/time_window and rules cannot be specified at the same time`},
		{`{"count":1,"rules":[{"count":1,"time_window":1,"key":"a"}]}`, `count/time_window and rules cannot be specified at the same time`},
		{`{"rules":[{"count":1,"time_window":1,"key":"a"},{"count":2,"time_window":1,"key":"a"}]}`, `duplicate key 'a' in rules`},
		{`{"rules":[{"count":1,"time_window":1,"key":"a","header_prefix":"a b"}]}`, `header_prefix "a b" cannot be part of a header's name`},
		{`{"count":1,"time_window":2,"policy":"redis","redis_host":"127.0.0.1","sync_interval":0.01}`, `sync_interval should not be smaller than 0.1`},
		{`{"count":1,"time_window":2,"policy":"redis","redis_host":"127.0.0.1","sync_interval":2}`, `sync_interval should be smaller than time_window`},
	} {
		if got := refusal(t, s, tt.conf); got != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.conf, got, tt.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	const page503, page429 = "<title>503 Service Temporarily Unavailable</title>", "<title>429 Too Many Requests</title>"
	for _, tt := range []struct{ conf, want, body string }{
		{`{"count":1,"time_window":60}`, "503\nContent-Type: text/html; charset=utf-8\nX-RateLimit-Limit: 1\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 60\n", page503},
		{`{"count":1,"time_window":60,"rejected_code":429,"rejected_msg":"slow down"}`,
			"429\nContent-Type: text/plain; charset=utf-8\nX-RateLimit-Limit: 1\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 60\n", "{\"error_msg\":\"slow down\"}\n"},
		{`{"count":1,"time_window":60,"rejected_code":429,"show_limit_quota_header":false}`, "429\nContent-Type: text/html; charset=utf-8\n", page429},
	} {
		p := newRig().build(t, "routes/1", tt.conf)
		visit(t, p, "GET /")
		x := phasetest.Exchange("GET /")
		var e phasetest.Env
		reached := false
		got := phasetest.Run(x, &e, func(*phase.Exchange) { reached = true }, phase.Instance{Plugin: p})
		if !strings.HasPrefix(got, tt.want) || !strings.Contains(got, tt.body) || reached {
			t.Errorf("%s\ngot  %q\nwant %q and %q", tt.conf, got, tt.want, tt.body)
		}
	}
}

func TestQuota(t *testing.T) {
	r := newRig()
	p := r.build(t, "routes/1", `{"count":2,"time_window":60}`)
	for i, step := range []struct {
		wait int64
		want string
	}{
		{0, "200 2 1 60"}, {1, "200 2 0 59.99"}, {10 * second, "503 2 0 49.99"}, {500e6 - 1, "503 2 0 49.5"}, {49500e6 - 1, "503 2 0 0"},
		{1, "200 2 1 60"}, // the window ended
	} {
		r.now += step.wait
		if got := visit(t, p, "GET /"); got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
}

func TestSlidingQuota(t *testing.T) {
	r := newRig() // 1000 s is 40 s into a window of 60 s
	p := r.build(t, "routes/1", `{"count":2,"time_window":60,"window_type":"sliding","rejected_code":429}`)
	for i, step := range []struct {
		wait int64
		want string
	}{
		{0, "200 2 1 20"}, {0, "200 2 0 20"}, {0, "429 2 0 20"}, {21 * second, "200 2 0 59"}, {0, "429 2 0 29"}, {29*second + 1, "200 2 0 29.99"},
	} {
		r.now += step.wait
		if got := visit(t, p, "GET /"); got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
}

func TestKeys(t *testing.T) {
	const rest = `,"time_window":60,"rejected_code":429,"show_limit_quota_header":false}`
	type request struct{ lines, want string }
	for _, tt := range []struct {
		conf     string
		requests []request
	}{
		{`{"count":1,"key":"http_x_user"` + rest, []request{{"X-User: a", "200"}, {"X-User: b", "200"}, {"X-User: a", "429"}, {"", "200"}, {"", "429"}}},
		{`{"count":1,"key_type":"constant","key":"all"` + rest, []request{{"X-Real-IP: 1.1.1.1", "200"}, {"X-Real-IP: 2.2.2.2", "429"}}},
		{`{"count":1,"key_type":"var_combination","key":"$http_x_a$http_x_b"` + rest,
			[]request{{"X-A: 1", "200"}, {"X-B: 1", "429"}, {"X-A: 2", "200"}, {"", "200"}, {"", "429"}}},
		{`{"count":"${http_x_count ?? 1}","key":"http_x_count"` + rest, []request{{"X-Count: 2", "200"}, {"X-Count: 2", "200"}, {"X-Count: 2", "429"},
			{"", "200"}, {"", "429"}, {"X-Count: abc", "500"}, {"X-Count: 0", "500"}, {"X-Count: 1.5", "500"}}},
		{`{"count":"$http_x_count","allow_degradation":true` + rest, []request{{"", "200"}, {"", "200"}, {"X-Count: 1", "200"}, {"X-Count: 1", "429"}}},
		{`{"rejected_code":429,"show_limit_quota_header":false,"rules":[{"count":1,"time_window":60,"key":"$http_x_a"},{"count":"$http_x_n","time_window":60,"key":"b$http_x_b"}]}`,
			[]request{{"", "500"}, {"X-A: 1", "200"}, {"X-A: 1", "429"}, {"X-A: 2|X-B: 1", "500"}, {"X-A: 2|X-B: 1|X-N: 1", "200"},
				{"X-A: 3|X-B: 1|X-N: 1", "429"}, {"X-A: 3", "429"}}}, // the first rule is charged even when the second refuses
		{`{"rejected_code":429,"allow_degradation":true,"rules":[{"count":1,"time_window":60,"key":"$http_x_a"}]}`, []request{{"", "200"}, {"", "200"}}},
		{`{"rules":[]}`, []request{{"", "500"}}},
	} {
		p := newRig().build(t, "routes/1", tt.conf)
		for i, q := range tt.requests {
			var lines []string
			if q.lines != "" {
				lines = strings.Split(q.lines, "|")
			}
			if got := visit(t, p, "GET /", lines...); got != q.want {
				t.Errorf("%s\nrequest %d (%s): got %s, want %s", tt.conf, i, q.lines, got, q.want)
			}
		}
	}
}

func TestHeadersOfRules(t *testing.T) {
	r := newRig()
	r.envs["routes/1"] = &phasetest.Env{Meta: `{"remaining_header":"Left","reset_header":"no name"}`}
	p := r.build(t, "routes/1", `{"rules":[{"count":5,"time_window":10,"key":"$uri"},{"count":7,"time_window":20,"key":"$host","header_prefix":"Host"}]}`)
	x := phasetest.Exchange("GET /")
	if p.Access(x) != phase.Continue {
		t.Fatal("refused")
	}
	want := "Left: 6|X-1-RateLimit-Limit: 5|X-1-RateLimit-Reset: 10|X-Host-RateLimit-Limit: 7|X-Host-RateLimit-Reset: 20"
	if got := strings.Join(phasetest.Lines(&x.Response.Header), "|"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	r.envs["routes/2"] = &phasetest.Env{Meta: `{"limit_header":"X-L","remaining_header":"X-R","reset_header":"X-T"}`}
	x = phasetest.Exchange("GET /")
	r.build(t, "routes/2", `{"count":1,"time_window":60}`).Access(x)
	if got := strings.Join(phasetest.Lines(&x.Response.Header), "|"); got != "X-L: 1|X-R: 0|X-T: 60" {
		t.Errorf("got %s", got)
	}
}

// Counters belong to the document and to what the configuration says, to nothing else.
func TestWhoSharesCounters(t *testing.T) {
	r := newRig()
	const conf = `{"count":1,"time_window":60,"show_limit_quota_header":false}`
	expect := func(what string, p *plugin, want string) {
		t.Helper()
		if got := visit(t, p, "GET /"); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	expect("first", r.build(t, "routes/1", conf), "200")
	expect("another instance of it", r.build(t, "routes/1", conf), "503")
	expect("written in another way", r.build(t, "routes/1", ` {"_meta":{},"show_limit_quota_header":false,"time_window":60,"count":1}`), "503")
	expect("another document", r.build(t, "routes/2", conf), "200")
	expect("changed", r.build(t, "routes/1", strings.Replace(conf, "60", "61", 1)), "200")

	grouped := strings.Replace(conf, "{", `{"group":"g",`, 1)
	a, b := r.build(t, "routes/1", grouped), r.build(t, "routes/2", grouped)
	expect("in a group", a, "200")
	expect("in the same group", b, "503")
	expect("in another group", r.build(t, "routes/3", strings.Replace(grouped, `"g"`, `"h"`, 1)), "200")

	changed := []byte(strings.Replace(grouped, "60", "61", 1))
	k := r.kind()
	if _, err := k.Build(changed, r.envs["routes/1"]); err == nil || err.Error() != "group conf mismatched" {
		t.Errorf("a change beside another member: %v", err)
	}
	b.Close()
	if _, err := k.Build(changed, r.envs["routes/1"]); err != nil { // its own former configuration does not stand in the way
		t.Errorf("a change of the only member: %v", err)
	}
}

// N pass from any number of goroutines, over two instances of one configuration.
func TestExactUnderConcurrency(t *testing.T) {
	for _, kind := range []string{"fixed", "sliding"} {
		r := newRig()
		conf := `{"count":1000,"time_window":60,"key":"http_x_user","window_type":"` + kind + `"}`
		plugins := []*plugin{r.build(t, "routes/1", conf), r.build(t, "routes/1", conf)}
		var passed [2]atomic.Int64
		var done sync.WaitGroup
		for g := range 64 {
			done.Go(func() {
				user := g % 2
				x := phasetest.Exchange("GET /", fmt.Sprintf("X-User: %d", user))
				for i := range 100 {
					x.Response.Header.Reset()
					if plugins[(g+i)/2%2].Access(x) == phase.Continue {
						passed[user].Add(1)
					}
				}
			})
		}
		done.Wait()
		if a, b := passed[0].Load(), passed[1].Load(); a != 1000 || b != 1000 {
			t.Errorf("%s: %d and %d passed", kind, a, b)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"count":2,"time_window":"${arg_w ?? 1}","key":"$uri","key_type":"var_combination","group":"g"}`, "w=5")
	f.Add(`{"rules":[{"count":"$arg_n","time_window":1e2,"key":"$arg_k","header_prefix":"A"}],"rejected_msg":"no","allow_degradation":true}`, "n=1&k=2")
	f.Add(`{"count":9007199254740991,"time_window":9007199254740991,"window_type":"sliding","rejected_code":200}`, "")
	s := compiled(f)
	f.Fuzz(func(t *testing.T, conf, query string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil || Kind(nil).Validate([]byte(conf)) != nil {
			return
		}
		r := newRig()
		var e phasetest.Env
		built, err := r.kind().Build([]byte(conf), &e)
		if err != nil {
			return
		}
		defer built.(*plugin).Close()
		if built.(*plugin).remote != nil {
			return // what is counted elsewhere has tests of its own
		}
		x := phasetest.Exchange("GET /?" + query)
		for range 3 {
			if v := built.(*plugin).Access(x); (v == phase.Stop) != (x.Response.Status != 0) {
				t.Errorf("verdict %v with status %d", v, x.Response.Status)
			}
			r.now += second
		}
	})
}
