package errorpage

import (
	"strings"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/fault"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestSchemas(t *testing.T) {
	for _, raw := range [][]byte{Kind().Schema, Kind().MetadataSchema} {
		s, err := schema.Compile("error-page", raw)
		if err != nil {
			t.Fatal(err)
		}
		if s.Validate(map[string]any{}) != nil || s.Validate("text") == nil {
			t.Error("the schema takes a text, or refuses an object")
		}
	}
	s, _ := schema.Compile("error-page", Kind().MetadataSchema)
	doc, _ := schema.DecodeJSON([]byte(`{"error_404":{"body":1}}`))
	if err := s.Validate(doc); err == nil || err.Error() != `property "error_404" validation failed: property "body" validation failed: wrong type: expected string, got number` {
		t.Errorf("%v", err)
	}
}

func TestPages(t *testing.T) {
	const own = `{"enable":true,"error_404":{"body":"lost","content_type":"text/plain"},"error_502":{},"error_503":{"body":""}}`
	plain := func(x *phase.Exchange) {
		x.Response.Header.Add([]byte("Content-Encoding"), []byte("br"))
		x.AnswerPage(404)
	}
	failed := func(x *phase.Exchange) { x.Fail(fault.ConnectFailed) }
	for _, tt := range []struct {
		name, meta string
		serve      func(*phase.Exchange)
		want       string // the answer, or its beginning
		source     phase.Source
	}{
		{"of a plugin", own, plain, "404\nContent-Type: text/plain\n\nlost", phase.FromPlugin},
		{"of the gateway", own, failed, "502\nContent-Type: text/html\n\n<html>\n<head><title>502 Bad Gateway</title></head>\n<body>\n", phase.FromGateway},
		{"of the upstream", own, phasetest.Reply(404, "up"), "404\n\nup", phase.FromUpstream},
		{"no text", own, func(x *phase.Exchange) { x.Answer(503, "", []byte("busy")) }, "503\n\nbusy", phase.FromPlugin},
		{"other status", own, func(x *phase.Exchange) { x.Answer(500, "", []byte("oh")) }, "500\n\noh", phase.FromPlugin},
		{"no error", own, func(x *phase.Exchange) { x.Answer(200, "", []byte("ok")) }, "200\n\nok", phase.FromPlugin},
		{"switched off", strings.Replace(own, "true", "false", 1), func(x *phase.Exchange) { x.Answer(404, "", []byte("no")) }, "404\n\nno", phase.FromPlugin},
		{"not switched on", `{"error_404":{}}`, func(x *phase.Exchange) { x.Answer(404, "", []byte("no")) }, "404\n\nno", phase.FromPlugin},
		{"no metadata", ``, func(x *phase.Exchange) { x.Answer(404, "", []byte("no")) }, "404\n\nno", phase.FromPlugin},
	} {
		e := phasetest.Env{Meta: tt.meta}
		i := phase.Instance{Plugin: e.Build(t, Kind(), `{}`)}
		x := phasetest.Exchange("GET /")
		if got := phasetest.Run(x, &e, tt.serve, i); !strings.HasPrefix(got, tt.want) || x.Response.Source != tt.source {
			t.Errorf("%s: %q by %v", tt.name, got, x.Response.Source)
		}
	}
}

func TestBadMetadata(t *testing.T) {
	e := phasetest.Env{Meta: `{"enable":true,"error_404":{"content_type":"a\r\nb: c"}}`}
	if _, err := Kind().Build([]byte(`{}`), &e); err == nil {
		t.Error("a line in a line")
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add(`{"enable":true,"error_404":{"body":"lost","content_type":"text/plain"}}`)
	f.Add(`{"enable":true,"error_404":[]}`)
	f.Fuzz(func(t *testing.T, meta string) {
		e := phasetest.Env{Meta: meta}
		p, err := Kind().Build([]byte(`{}`), &e)
		if err != nil {
			return
		}
		x := phasetest.Exchange("GET /")
		phasetest.Run(x, &e, func(x *phase.Exchange) { x.AnswerPage(404) }, phase.Instance{Plugin: p})
		for _, l := range phasetest.Lines(&x.Response.Header) {
			if strings.ContainsAny(l, "\r\n") || x.Response.Status != 404 {
				t.Errorf("%q", l)
			}
		}
	})
}
