package cors

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{}`, "OPTIONS /a", "Origin: http://a.example", "200 1: it answers every preflight request"},
		{`{}`, "GET /a", "Origin: http://a.example", ""},
	} {
		var e phasetest.Env
		x := phasetest.Exchange(tt.request)
		if tt.line != "" {
			x = phasetest.Exchange(tt.request, tt.line)
		}
		plugin := e.Build(t, Kind(), tt.conf)
		x.Enter(nil, phase.NewChainOf(nil, nil, e.Slots))
		if got := phasetest.Foretell(t, plugin, x); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.conf, tt.request, got, tt.want)
		}
	}
}
