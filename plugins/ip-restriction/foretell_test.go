package iprestriction

import (
	"net/netip"
	"testing"

	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{"blacklist":["10.0.0.0/8"],"response_code":404}`, "GET /", "", "404 1: the address of the client is refused"},
		{`{"whitelist":["10.0.0.0/8"]}`, "GET /", "", ""},
	} {
		var e phasetest.Env
		x := phasetest.Exchange(tt.request)
		if tt.line != "" {
			x = phasetest.Exchange(tt.request, tt.line)
		}
		x.Client.Addr = netip.MustParseAddr("10.1.1.1")
		if got := phasetest.Foretell(t, e.Build(t, Kind(), tt.conf), x); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.conf, tt.request, got, tt.want)
		}
	}
}
