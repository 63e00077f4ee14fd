package snapshot

import (
	"fmt"
	"testing"
	"time"

	"headgate/proxy/meter"
	"headgate/proxy/phase"
	"headgate/proxy/upstream"
)

// inner is an instance that another plugin has built.
type inner struct{ closed *int }

func (inner) Access(*phase.Exchange) phase.Verdict { return phase.Continue }
func (i inner) Close()                             { *i.closed++ }

// A plugin builds instances of kinds for authentication and of those that its own kind names; they are closed with it.
func TestPluginBuildsAnother(t *testing.T) {
	closed := 0
	nested := func(name string) phase.Kind {
		return phase.Kind{
			Name: name, Schema: []byte(`{"type":"object","required":["count"]}`),
			Build: func([]byte, phase.Env) (any, error) { return inner{&closed}, nil },
		}
	}
	login := nested("login")
	login.Consumer = &phase.ConsumerKind{Schema: []byte(`{"type":"object"}`), Identity: "key"}
	outer := phase.Kind{
		Name: "outer", Schema: []byte(`{"type":"object"}`), Uses: []string{"limit"},
		Build: func(conf []byte, env phase.Env) (any, error) {
			name, inside := "limit", `{}`
			for _, known := range []string{"limit", "login", "other", "none"} {
				if string(conf) == `{"build":"`+known+`"}` {
					name, inside = known, `{"count":1}`
				}
			}
			built, err := env.Plugin(name, []byte(inside))
			if err != nil {
				return nil, err
			}
			return struct{ phase.Accessor }{built.(phase.Accessor)}, nil
		},
	}
	hub := upstream.NewHub(upstream.NewResolver(time.Minute), nil)
	defer hub.Close()
	c, err := NewCompiler(&Live{}, Options{Kinds: []phase.Kind{login, outer, nested("limit"), nested("other")}, Hub: hub, Meter: meter.New("")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ build, want string }{
		{"limit", "<nil>"},
		{"login", "<nil>"},
		{"other", "other plugin is not supported"},
		{"none", "none plugin did not found"},
		{"bad", `failed to check the configuration of plugin limit err: property "count" is required`},
	} {
		doc := `{"uri":"/a","plugins":{"outer":{"build":"` + tt.build + `"}}}`
		st, err := c.Stage(func(string) []byte { return nil }, []Edit{{Key: "routes/1", Value: []byte(doc)}}, false)
		if tt.want != "<nil>" {
			tt.want = "failed to check the configuration of plugin outer err: " + tt.want
		}
		if fmt.Sprint(err) != tt.want {
			t.Errorf("%s: %v", tt.build, err)
		}
		if err == nil {
			st.Discard()
		}
	}
	if closed != 2 {
		t.Errorf("2 instances were built for another one, %d were closed", closed)
	}
}
