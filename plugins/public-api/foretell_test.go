package publicapi

import (
	"testing"

	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

// What an explanation says is what happens.
func TestForetell(t *testing.T) {
	for _, tt := range []struct{ conf, request, line, want string }{
		{`{}`, "GET /a", "", "0 1: an internal API of the gateway answers"},
		{`{}`, "GET /b", "", "404 1: there is no such internal API"},
		{`{"uri":"/a"}`, "GET /b", "", "0 1: an internal API of the gateway answers"},
	} {
		var e phasetest.Env
		x := phasetest.Exchange(tt.request)
		if tt.line != "" {
			x = phasetest.Exchange(tt.request, tt.line)
		}
		if got := phasetest.Foretell(t, e.Build(t, Kind(map[string]Handler{"/a": func(x *phase.Exchange) { x.Answer(201, phase.TypeText, nil) }}), tt.conf), x); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.conf, tt.request, got, tt.want)
		}
	}
}
