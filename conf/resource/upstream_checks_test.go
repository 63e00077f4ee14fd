package resource

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// plainActive is what contract section 3.4 says of active checks that name nothing.
func plainActive() *ActiveChecks {
	return &ActiveChecks{
		Type: "http", Timeout: time.Second, Concurrency: 10, Path: "/", Verify: true,
		Healthy: Report{Interval: time.Second, Statuses: []int{200, 302}, Successes: 2},
		Unhealthy: Report{
			Interval: time.Second, Statuses: []int{429, 404, 500, 501, 502, 503, 504, 505}, HTTPFailures: 5, TCPFailures: 2, Timeouts: 3,
		},
	}
}

func TestDecodeChecks(t *testing.T) {
	active := func(edit func(a *ActiveChecks)) *ActiveChecks {
		a := plainActive()
		edit(a)
		return a
	}
	for _, c := range []struct {
		in   string
		want *Checks
	}{
		{`{"active":{}}`, &Checks{Active: plainActive()}},
		{`{"active":{},"passive":{},"slow_start":2.5}`, &Checks{Active: plainActive(), Passive: &PassiveChecks{}, SlowStart: 2500 * time.Millisecond}},
		{`{"active":{},"passive":{"healthy":{},"unhealthy":{}}}`, &Checks{Active: plainActive(), Passive: &PassiveChecks{
			Healthy: &Report{Successes: 5, Statuses: []int{200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308}},
			Unhealthy: &Report{
				Statuses: []int{429, 500, 503}, HTTPFailures: 5, TCPFailures: 2, Timeouts: 7,
			},
		}}},
		{`{"active":{},"passive":{"unhealthy":{"http_statuses":[500],"http_failures":1,"tcp_failures":0}}}`, &Checks{
			Active: plainActive(), Passive: &PassiveChecks{Unhealthy: &Report{Statuses: []int{500}, HTTPFailures: 1, Timeouts: 7}},
		}},
		{`{"active":{"type":"https","timeout":0.25,"concurrency":3,"host":"h","port":81,"http_path":"/p?q=1","https_verify_certificate":false,
			"http_method":"HEAD","http_req_body":"b","req_headers":["A: b","C:d","A: b"],
			"healthy":{"interval":3,"http_statuses":[201],"successes":1},
			"unhealthy":{"interval":4,"http_statuses":[500,418],"http_failures":1,"tcp_failures":3,"timeouts":4}}}`, &Checks{Active: &ActiveChecks{
			Type: "https", Timeout: 250 * time.Millisecond, Concurrency: 3, Host: "h", Port: 81, Path: "/p?q=1", Headers: []string{"A: b", "C:d", "A: b"},
			Healthy:   Report{Interval: 3 * time.Second, Statuses: []int{201}, Successes: 1},
			Unhealthy: Report{Interval: 4 * time.Second, Statuses: []int{500, 418}, HTTPFailures: 1, TCPFailures: 3, Timeouts: 4},
		}}},
		{`{"active":{"timeout":0,"concurrency":0}}`, &Checks{Active: active(func(a *ActiveChecks) { a.Concurrency = 1 })}},
		{`{"active":{"concurrency":100000}}`, &Checks{Active: active(func(a *ActiveChecks) { a.Concurrency = 1000 })}},
		{`{"active":{"http_path":""}}`, &Checks{Active: plainActive()}},
		{`{"active":{"http_path":"status"}}`, &Checks{Active: active(func(a *ActiveChecks) { a.Path = "/status" })}},
	} {
		u, err := DecodeUpstream([]byte(`{"nodes":{},"checks":` + c.in + `}`))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if diff := cmp.Diff(c.want, u.Checks); diff != "" {
			t.Errorf("%s\n%s", c.in, diff)
		}
	}
}

// What would break out of the probe's lines is refused when it is written, and told by its name.
func TestRefuseChecks(t *testing.T) {
	for in, want := range map[string]string{
		`{"active":{"http_path":"/a b"}}`:                       "checks.active.http_path: expected a path without",
		`{"active":{"http_path":"/a\r\nX: y"}}`:                 "checks.active.http_path",
		`{"active":{"req_headers":["A: b\r\nC: d"]}}`:           "checks.active.req_headers: expected lines of the form",
		`{"active":{"req_headers":["no colon"]}}`:               "checks.active.req_headers",
		`{"active":{"req_headers":["Sp ace: x"]}}`:              "checks.active.req_headers",
		`{"active":{"req_headers":[": x"]}}`:                    "checks.active.req_headers",
		`{"active":{"timeout":-1}}`:                             "checks.active.timeout: expected a number of seconds",
		`{"passive":{}}`:                                        `property "checks" validation failed: object matches none of the required`,
		`{"active":{},"slow_start":-1}`:                         `property "slow_start" validation failed: expected -1 to be at least 0`,
		`{"active":{},"slow_start":3601}`:                       `property "slow_start" validation failed: expected 3601 to be at most 3600`,
		`{"active":{"healthy":{"successes":0}}}`:                `property "successes" validation failed: expected 0 to be at least 1`,
		`{"active":{},"passive":{"healthy":{"successes":255}}}`: `property "successes" validation failed: expected 255 to be at most 254`,
		`{"active":{"unhealthy":{"http_statuses":[600]}}}`:      `expected 600 to be at most 599`,
		`{"active":{"type":"grpc"}}`:                            `property "type" validation failed`,
	} {
		err := ValidateUpstream(object(t, `{"type":"roundrobin","nodes":{},"checks":`+in+`}`))
		if err == nil {
			t.Errorf("%s: was taken", in)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: refused with %q, want %q", in, err, want)
		}
	}
}
