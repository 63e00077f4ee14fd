package faultinjection

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{"abort":{"http_status":503}}`, "GET /", "", "503 1: abort is for 100 % of such requests"},
		{`{"abort":{"http_status":503,"percentage":25}}`, "GET /", "", "503 0.25: abort is for 25 % of such requests"},
		{`{"abort":{"http_status":503,"percentage":0}}`, "GET /", "", ""},
		{`{"abort":{"http_status":403,"vars":[[["arg_a","==","1"]]]}}`, "GET /?a=1", "", "403 1: abort is for 100 % of such requests"},
		{`{"abort":{"http_status":403,"vars":[[["arg_a","==","1"]]]}}`, "GET /?a=2", "", ""},
		{`{"delay":{"duration":0}}`, "GET /", "", ""},
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
