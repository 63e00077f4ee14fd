package mocking

import (
	"testing"

	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{"response_status":418,"response_example":"x"}`, "GET /", "", "418 1: it answers every request"},
		{`{"response_schema":{}}`, "POST /", "", "200 1: it answers every request"},
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
