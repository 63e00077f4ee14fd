package uarestriction

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{"denylist":["bot"]}`, "GET /", "User-Agent: a bot", "403 1: the User-Agent is refused"},
		{`{"denylist":["bot"]}`, "GET /", "User-Agent: curl", ""},
	} {
		var e phasetest.Env
		if got := phasetest.Foretell(t, e.Build(t, Kind(), tt.conf), phasetest.Exchange(tt.request, tt.line)); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.conf, tt.request, got, tt.want)
		}
	}
}
