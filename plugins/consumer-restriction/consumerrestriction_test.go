package consumerrestriction

import (
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func answer(status, message string) string {
	return status + "\nContent-Type: text/plain; charset=utf-8\n\n{\"message\":\"" + message + "\"}\n"
}

func TestAccess(t *testing.T) {
	const served = "200\n\nserved"
	forbidden := func(kind string) string { return answer("403", "The "+kind+" is forbidden.") }
	unknown := func(kind string) string {
		return answer("401", "The request is rejected, please check the "+kind+" for this request")
	}
	jack := phase.Consumer{Name: "jack", Group: "g1"}
	jill := phase.Consumer{Name: "jill"}
	route := &phase.Route{ID: "1", ServiceID: "s"}
	const methods = `{"allowed_by_methods":[{"user":"jack","methods":["POST","PUT"]},{"user":"jack","methods":["GET"]},{"user":"jim"}]}`
	tests := []struct {
		name, conf, method string
		who                phase.Consumer
		route              *phase.Route
		want               string
	}{
		{"white", `{"whitelist":["jack"]}`, "GET", jack, nil, served},
		{"not white", `{"whitelist":["jack"]}`, "GET", jill, nil, forbidden("consumer_name")},
		{"black", `{"blacklist":["jack"]}`, "GET", jack, nil, forbidden("consumer_name")},
		{"not black", `{"blacklist":["jack"]}`, "GET", jill, nil, served},
		{"black and white", `{"blacklist":["jack"],"whitelist":["jack","jill"]}`, "GET", jack, nil, forbidden("consumer_name")},
		{"only white", `{"blacklist":["jack"],"whitelist":["jack","jill"]}`, "GET", jill, nil, served},
		{"neither", `{"blacklist":["jack"],"whitelist":["jim"]}`, "GET", jill, nil, forbidden("consumer_name")},
		{"part of a name", `{"whitelist":["jac"]}`, "GET", jack, nil, forbidden("consumer_name")},
		{"nobody", `{"whitelist":["jack"]}`, "GET", phase.Consumer{}, nil, unknown("consumer_name")},
		{"nobody, black", `{"blacklist":["jack"]}`, "GET", phase.Consumer{}, nil, unknown("consumer_name")},
		{"nobody is not the empty name", `{"whitelist":[""]}`, "GET", phase.Consumer{}, nil, unknown("consumer_name")},

		{"method", methods, "POST", jack, nil, served},
		{"other method", methods, "GET", jack, nil, forbidden("consumer_name")},
		{"method in another case", methods, "post", jack, nil, forbidden("consumer_name")},
		{"user without methods", methods, "GET", phase.Consumer{Name: "jim"}, nil, forbidden("consumer_name")},
		{"user not listed", methods, "GET", jill, nil, served},
		{"white, whatever the method", strings.Replace(methods, "{", `{"whitelist":["jack"],`, 1), "GET", jack, nil, served},
		{"not white, whatever the method", strings.Replace(methods, "{", `{"whitelist":["jill"],`, 1), "POST", jack, nil,
			forbidden("consumer_name")},
		{"black, whatever the method", strings.Replace(methods, "{", `{"blacklist":["jack"],`, 1), "POST", jack, nil,
			forbidden("consumer_name")},
		{"no entries", `{"allowed_by_methods":[]}`, "GET", jack, nil, served},

		{"group", `{"type":"consumer_group_id","whitelist":["g1"]}`, "GET", jack, nil, served},
		{"other group", `{"type":"consumer_group_id","blacklist":["g1"]}`, "GET", jack, nil, forbidden("consumer_group_id")},
		{"no group", `{"type":"consumer_group_id","whitelist":["g1"]}`, "GET", jill, nil, unknown("consumer_group_id")},
		{"route", `{"type":"route_id","whitelist":["1"]}`, "GET", jack, route, served},
		{"other route", `{"type":"route_id","whitelist":["2"]}`, "GET", jack, route, forbidden("route_id")},
		{"no route", `{"type":"route_id","blacklist":["2"]}`, "GET", jack, nil, unknown("route_id")},
		{"service", `{"type":"service_id","whitelist":["s"]}`, "GET", jack, route, served},
		{"other service", `{"type":"service_id","blacklist":["s"]}`, "GET", jack, route, forbidden("service_id")},
		{"no service", `{"type":"service_id","blacklist":["s"]}`, "GET", jack, &phase.Route{ID: "1"}, unknown("service_id")},

		{"code and message", `{"blacklist":["jack"],"rejected_code":401,"rejected_msg":"go away"}`, "GET", jack, nil, answer("401", "go away")},
		{"code with an exponent", `{"blacklist":["jack"],"rejected_code":4.5e2}`, "GET", jack, nil,
			answer("450", "The consumer_name is forbidden.")},
		{"message that needs escapes", `{"blacklist":["jack"],"rejected_msg":"a \"b\" <c>/d"}`, "GET", jack, nil,
			answer("403", `a \"b\" <c>/d`)},
		{"empty message", `{"blacklist":["jack"],"rejected_msg":""}`, "GET", jack, nil, answer("403", "")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &phasetest.Env{}
			p := e.Build(t, Kind(), tt.conf)
			x := phasetest.Exchange(tt.method + " /a")
			x.Consumer, x.Route = tt.who, tt.route
			got := phasetest.Run(x, e, phasetest.Reply(200, "served"), phase.Instance{Name: "consumer-restriction", Plugin: p})
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The texts are those of the contract's recorded answers.
func TestSchema(t *testing.T) {
	s, err := schema.Compile("consumer-restriction", Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	for conf, want := range map[string]string{
		`{"whitelist":["a"],"other":1}`:                                      "",
		`{"allowed_by_methods":[{"user":"a","methods":["GET","PURGE"]},{}]}`: "",
		`{}`:                             `object matches none of the required: ["blacklist"] or ["whitelist"] or ["allowed_by_methods"]`,
		`{"type":"x","whitelist":["a"]}`: `property "type" validation failed: matches none of the enum values`,
		`{"whitelist":[]}`:               `property "whitelist" validation failed: expect array to have at least 1 items`,
		`{"blacklist":[1]}`:              `property "blacklist" validation failed: failed to validate item 1: wrong type: expected string, got number`,
		`{"allowed_by_methods":[{"user":"a","methods":["GETS"]}]}`: `property "allowed_by_methods" validation failed: ` +
			`failed to validate item 1: property "methods" validation failed: failed to validate item 1: matches none of the enum values`,
		`{"whitelist":["a"],"rejected_code":199}`: `property "rejected_code" validation failed: expected 199 to be at least 200`,
		`{"whitelist":["a"],"rejected_code":"x"}`: `property "rejected_code" validation failed: wrong type: expected integer, got string`,
	} {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := s.Validate(doc); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", conf, got, want)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := &phasetest.Env{}
	x := phasetest.Exchange("GET /a")
	x.Consumer.Name = "jack"
	for _, conf := range []string{`{"whitelist":["jack"]}`, `{"blacklist":["jill"]}`, `{"allowed_by_methods":[{"user":"jack","methods":["PUT","GET"]}]}`} {
		p := e.Build(t, Kind(), conf).(phase.Accessor)
		n := testing.AllocsPerRun(100, func() {
			if p.Access(x) != phase.Continue {
				t.Fatal("refused")
			}
		})
		if n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{"whitelist":["a"]}`, `{"allowed_by_methods":{}}`, `{"allowed_by_methods":[{"user":"a"}],"rejected_code":2.5e2}`,
		`{"blacklist":["a","a"],"type":"route_id","rejected_msg":"\u2028"}`} {
		f.Add([]byte(s))
	}
	s, err := schema.Compile("consumer-restriction", Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf []byte) {
		doc, err := schema.DecodeJSON(conf)
		if err != nil || s.Validate(doc) != nil {
			return
		}
		p, err := Kind().Build(conf, &phasetest.Env{})
		if err != nil {
			t.Fatalf("%s satisfies the schema and was not built: %v", conf, err)
		}
		x := phasetest.Exchange("GET /")
		if p.(phase.Accessor).Access(x) != phase.Stop || x.Response.Status != 401 {
			t.Fatalf("%s lets everybody in", conf)
		}
		if c := p.(*plugin).RejectedCode; c < 200 || c > 599 {
			t.Fatalf("%s refuses with %d", conf, c)
		}
	})
}
