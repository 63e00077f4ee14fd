package publicapi

import (
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

var body = []byte("up 1\n")

func apis() map[string]Handler {
	return map[string]Handler{"/apisix/prometheus/metrics": func(x *phase.Exchange) { x.Answer(200, phase.TypeText, body) }}
}

func TestSchema(t *testing.T) {
	s, err := schema.Compile("public-api", Kind(nil).Schema)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(map[string]any{"uri": 1}); err == nil || err.Error() != `property "uri" validation failed: wrong type: expected string, got number` {
		t.Errorf("%v", err)
	}
}

func TestAnswers(t *testing.T) {
	const found, missing = "200\nContent-Type: text/plain; charset=utf-8\n\nup 1\n", "404\nContent-Type: text/html; charset=utf-8\n\n<html>"
	for _, tt := range []struct{ conf, request, want string }{
		{`{}`, "GET /apisix/prometheus/metrics?x=1", found},
		{`[]`, "GET /apisix/prometheus/metrics", found},
		{`{"uri":"/apisix/prometheus/metrics"}`, "GET /anything", found},
		{`{"uri":"/other"}`, "GET /apisix/prometheus/metrics", missing},
		{`{"uri":""}`, "GET /apisix/prometheus/metrics", missing},
		{`{}`, "GET /apisix/prometheus/metrics/", missing},
	} {
		var e phasetest.Env
		i := phase.Instance{Plugin: e.Build(t, Kind(apis()), tt.conf)}
		reached := false
		got := phasetest.Run(phasetest.Exchange(tt.request), &e, func(*phase.Exchange) { reached = true }, i)
		if got != tt.want && (tt.want != missing || !strings.HasPrefix(got, missing)) || reached {
			t.Errorf("%s %s: %q, upstream %v", tt.conf, tt.request, got, reached)
		}
	}
}

func TestNothingIsPublicUnasked(t *testing.T) {
	var e phasetest.Env
	i := phase.Instance{Plugin: e.Build(t, Kind(nil), `{}`)}
	if got := phasetest.Run(phasetest.Exchange("GET /apisix/prometheus/metrics"), &e, nil, i); !strings.HasPrefix(got, "404\n") {
		t.Errorf("%q", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"uri":"/apisix/prometheus/metrics"}`, "/x")
	f.Fuzz(func(t *testing.T, conf, path string) {
		var e phasetest.Env
		p, err := Kind(apis()).Build([]byte(conf), &e)
		if err != nil {
			return
		}
		x := phasetest.Exchange("GET /")
		x.Request.Path = []byte(path)
		phasetest.Run(x, &e, nil, phase.Instance{Plugin: p})
		if s := x.Response.Status; s != 404 && (s != 200 || !strings.Contains(conf, "uri") && path != "/apisix/prometheus/metrics") {
			t.Errorf("%s %s: %d", conf, path, s)
		}
	})
}
