package proxybuffering

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
		`{}`:                                 "<nil>",
		`[]`:                                 "<nil>",
		`{"disable_proxy_buffering":true}`:   "<nil>",
		`{"disable_proxy_buffering":false}`:  "<nil>",
		`{"disable_proxy_buffering":"true"}`: `property "disable_proxy_buffering" validation failed: wrong type: expected boolean, got string`,
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
		x := phasetest.Exchange("GET /")
		if got := phasetest.Run(x, &e, phasetest.Reply(200, "up"), phase.Instance{Plugin: p}); got != "200\n\nup" {
			t.Errorf("%s: %q", conf, got)
		}
		if _, chunks := p.(phase.Chunker); chunks {
			t.Error("it looks at bodies")
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(`{"disable_proxy_buffering":true}`)
	f.Add(`{"disable_proxy_buffering":0,"other":[1]}`)
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
