package snapshot

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"headgate/conf/resource"
	"headgate/proxy/phase"
)

// A Judge says of every configuration, as often as it is asked, what the Compiler says, and asks a plugin about equal ones only once.
func TestJudge(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	validate := func(conf []byte) error {
		mu.Lock()
		defer mu.Unlock()
		asked[string(conf)]++
		if strings.Contains(string(conf), "bad") {
			return fmt.Errorf("%s is not liked", conf)
		}
		return nil
	}
	kind := phase.Kind{
		Name: "p", Schema: []byte(`{"type":"object","properties":{"n":{"type":"integer"}}}`), Validate: validate,
		Build: func([]byte, phase.Env) (any, error) { return struct{}{}, nil },
		Consumer: &phase.ConsumerKind{
			Schema: []byte(`{"type":"object","required":["key"]}`), Identity: "key",
			Build: func([]byte) (any, error) { return nil, nil },
		},
		MetadataSchema: []byte(`{"type":"object","maxProperties":0}`),
	}
	c, err := NewCompiler(&Live{}, Options{Kinds: []phase.Kind{kind}})
	if err != nil {
		t.Fatal(err)
	}
	type question struct {
		conf any
		use  resource.Use
	}
	long := map[string]any{"text": strings.Repeat("x", maxJudgedConf)}
	questions := []question{
		{map[string]any{"text": "good"}, resource.InRoute},
		{map[string]any{"text": "good"}, resource.InConsumer},
		{map[string]any{"text": "good"}, resource.AsMetadata},
		{map[string]any{"text": "bad"}, resource.InRoute},
		{map[string]any{"n": "bad"}, resource.InRoute},
		{map[string]any{"text": "good", "_meta": map[string]any{"disable": false}}, resource.InRoute},
		{map[string]any{"text": "good", "_meta": nil}, resource.InRoute},
		{map[string]any{}, resource.InConsumer},
		{[]any{}, resource.InRoute},
		{[]any{1}, resource.InRoute},
		{map[string]any{"text": func() {}}, resource.InRoute}, // cannot be encoded
		{long, resource.InRoute},
	}
	var want []string
	for _, q := range questions {
		want = append(want, fmt.Sprint(c.CheckPlugin("p", q.conf, q.use)))
	}
	clear(asked)
	j := c.Judge()
	var running sync.WaitGroup
	ask := func() {
		for i, q := range questions {
			if got := fmt.Sprint(j.CheckPlugin("p", q.conf, q.use)); got != want[i] {
				t.Errorf("%d: %v, want %v", i, got, want[i])
			}
		}
	}
	ask()
	for range 4 {
		running.Go(ask)
	}
	running.Wait()
	if n := asked[`{"text":"good"}`]; n > 3 { // with and without _meta, of which there are two
		t.Errorf("what passed was judged %d times", n)
	}
	if n := asked[`{"text":"bad"}`]; n != 5 {
		t.Errorf("what did not pass was judged %d times", n)
	}
}

// What a Judge remembers is bounded.
func TestJudgeIsBounded(t *testing.T) {
	kind := phase.Kind{Name: "p", Schema: []byte(`{}`), Build: func([]byte, phase.Env) (any, error) { return struct{}{}, nil }}
	c, err := NewCompiler(&Live{}, Options{Kinds: []phase.Kind{kind}})
	if err != nil {
		t.Fatal(err)
	}
	j := c.Judge()
	for i := range maxJudged + 10 {
		if err := j.CheckPlugin("p", map[string]any{"n": fmt.Sprint(i)}, resource.InRoute); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.CheckPlugin("p", map[string]any{"n": strings.Repeat("x", maxJudgedConf)}, resource.InRoute); err != nil {
		t.Fatal(err)
	}
	if len(j.passed) != maxJudged {
		t.Errorf("%d are remembered", len(j.passed))
	}
}
