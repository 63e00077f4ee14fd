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
		`{"request_buffering":false}`: "<nil>",
		`{"request_buffering":1}`:     `property "request_buffering" validation failed: wrong type: expected boolean, got number`,
	} {
		doc, err := schema.DecodeJSON([]byte(conf))
		if err == nil {
			err = s.Validate(doc)
		}
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s: got %s, want %s", conf, got, want)
		}
		if want != "<nil>" {
			continue
		}
		var e phasetest.Env
		p := e.Build(t, Kind(), conf)
		x := phasetest.Exchange("POST /")
		unbuffered := false
		reply := phasetest.Reply(200, "up")
		got := phasetest.Run(x, &e, func(x *phase.Exchange) { unbuffered = x.Request.Unbuffered; reply(x) }, phase.Instance{Plugin: p})
		if got != "200\n\nup" || unbuffered != (conf == `{"request_buffering":false}`) {
			t.Errorf("%s: %q, unbuffered %t", conf, got, unbuffered)
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
		if _, err := Kind().Build([]byte(conf), &phasetest.Env{}); err != nil { // what passes can be built
			t.Errorf("%s: %v", conf, err)
		}
	})
}
