package uriblocker

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{"block_rules":["^/secret"],"rejected_code":404}`, "GET /secret?a=b", "", "404 1: the address of the request is blocked"},
		{`{"block_rules":["^/secret"]}`, "GET /open", "", ""},
		{`{"block_rules":[]}`, "GET /open", "", ""},
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
