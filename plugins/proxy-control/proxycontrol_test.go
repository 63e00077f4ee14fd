package proxycontrol

import (
	"fmt"
	"testing"

	"headgate/conf/schema"
	"headgate/proxy/phase"
	"headgate/proxy/phase/phasetest"
)

func TestConfig(t *testing.T) {
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		t.Fatal(err)
	}
	for conf, want := range map[string]string{
		`{}`:                          "<nil>",
		`[]`:                          "<nil>",
		`{"request_buffering":true}`:  "<nil>",
		`{"request_buffering":1}`:     `property "request_buffering" validation failed: wrong type: expected boolean, got number`,
		`{"request_buffering":false}`: errStreaming.Error(),
	} {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if err == nil {
			err = Kind().Validate([]byte(conf))
		}
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s: got %s, want %s", conf, got, want)
		}
		var e phasetest.Env
		if p, err := Kind().Build([]byte(conf), &e); err == nil {
			x := phasetest.Exchange("POST /")
			if got := phasetest.Run(x, &e, phasetest.Reply(200, "up"), phase.Instance{Plugin: p}); got != "200\n\nup" {
				t.Errorf("%s: %q", conf, got)
			}
		} else if want != errStreaming.Error() {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"request_buffering":true}`)
	f.Add(`{"request_buffering":false,"other":[1]}`)
	f.Add(`[]`)
	s, err := schema.Compile(Kind().Name, Kind().Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, conf string) {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err != nil || s.Validate(doc) != nil {
			return
		}
		// What passes can be built, and only that.
		_, failed := Kind().Build([]byte(conf), &phasetest.Env{})
		if refused := Kind().Validate([]byte(conf)); (failed == nil) != (refused == nil) {
			t.Errorf("%s: refused: %v, built: %v", conf, refused, failed)
		}
	})
}
