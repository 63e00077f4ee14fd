package redirect

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{"uri":"/to$uri","ret_code":307}`, "GET /a", "", "307 1: it sends the client to /to/a"},
		{`{"regex_uri":["^/a/(.*)","/b/$1"]}`, "GET /a/c", "", "302 1: it sends the client to /b/c"},
		{`{"regex_uri":["^/a/(.*)","/b/$1"]}`, "GET /x", "", ""},
		{`{"http_to_https":true}`, "POST /a", "Host: h", "308 1: it sends the client to https://h/a"},
		{`{"http_to_https":true}`, "GET /a", "X-Forwarded-Proto: https", ""},
		{`{}`, "GET /a", "", ""},
	} {
		var e phasetest.Env
		x := phasetest.Exchange(tt.request)
		if tt.line != "" {
			x = phasetest.Exchange(tt.request, tt.line)
		}
		if got := phasetest.Foretell(t, e.Build(t, Kind(), tt.conf), x); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.conf, tt.request, got, tt.want)
		}
	}
}
