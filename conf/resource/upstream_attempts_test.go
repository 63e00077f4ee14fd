package resource

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeAttempts(t *testing.T) {
	two := 2
	for _, c := range []struct {
		in      string
		retry   *Retry
		limits  *Limits
		timeout *Timeout
	}{
		{`{}`, nil, nil, nil},
		{`{"retry":{}}`, &Retry{}, nil, nil},
		{`{"retry":{"statuses":[503,429],"budget":2}}`, &Retry{Statuses: []int{429, 503}, Budget: &two}, nil, nil},
		{`{"retry":{"non_idempotent":true}}`, &Retry{NonIdempotent: true}, nil, nil},
		{`{"limits":{"inflight":7}}`, nil, &Limits{Inflight: 7, QueueTimeout: time.Second}, nil},
		{`{"limits":{"inflight":7,"queue":3,"queue_timeout":0.5}}`, nil, &Limits{Inflight: 7, Queue: 3, QueueTimeout: 500 * time.Millisecond}, nil},
		{`{"timeout":{"connect":1,"send":2,"read":3}}`, nil, nil, &Timeout{Connect: time.Second, Send: 2 * time.Second, Read: 3 * time.Second}},
		{
			`{"timeout":{"connect":1,"send":2,"read":3,"handshake":4,"head":5,"first_content":7,"total":6}}`, nil, nil,
			&Timeout{Connect: time.Second, Send: 2 * time.Second, Read: 3 * time.Second, Handshake: 4 * time.Second, Head: 5 * time.Second, FirstContent: 7 * time.Second, Total: 6 * time.Second},
		},
	} {
		u, err := DecodeUpstream([]byte(`{"nodes":{},` + strings.TrimPrefix(c.in, "{")))
		if c.in == "{}" {
			u, err = DecodeUpstream([]byte(`{"nodes":{}}`))
		}
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if diff := cmp.Diff(c.retry, u.Retry) + cmp.Diff(c.limits, u.Limits) + cmp.Diff(c.timeout, u.Timeout); diff != "" {
			t.Errorf("%s\n%s", c.in, diff)
		}
	}
}

func TestRefuseAttempts(t *testing.T) {
	for in, want := range map[string]string{
		`"retry":{"statuses":[]}`:                                  `property "statuses" validation failed`,
		`"retry":{"statuses":[100]}`:                               `expected 100 to be at least 200`,
		`"retry":{"statuses":[503,503]}`:                           `property "statuses" validation failed`,
		`"retry":{"budget":101}`:                                   `property "budget" validation failed: expected 101 to be at most 100`,
		`"retry":{"non_idempotent":1}`:                             `property "non_idempotent" validation failed`,
		`"retry":{"budgets":1}`:                                    `additional properties forbidden, found budgets`,
		`"limits":{}`:                                              `property "inflight" is required`,
		`"limits":{"inflight":0}`:                                  `property "inflight" validation failed: expected 0 to be at least 1`,
		`"limits":{"inflight":1,"queue":-1}`:                       `property "queue" validation failed: expected -1 to be at least 0`,
		`"limits":{"inflight":1,"queue_timeout":0}`:                `property "queue_timeout" validation failed`,
		`"timeout":{"connect":1,"send":1,"read":1,"head":0}`:       `property "head" validation failed`,
		`"timeout":{"connect":1,"send":1,"read":1,"total":"1"}`:    `property "total" validation failed`,
		`"timeout":{"connect":1,"send":1,"read":1,"handshake":-1}`: `property "handshake" validation failed`,
		`"timeout":{"connect":1,"send":1,"handshake":1}`:           `property "read" is required`,
	} {
		err := ValidateUpstream(object(t, `{"type":"roundrobin","nodes":{},`+in+`}`))
		if err == nil {
			t.Errorf("%s: was taken", in)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: refused with %q, want %q", in, err, want)
		}
	}
}
