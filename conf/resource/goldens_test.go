package resource

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden is one recorded conversation with the gateway whose contract this is.
type golden struct {
	Name  string
	Steps []struct {
		On, Method, Path string
		Body             *string
		Expect           struct {
			Status   int
			BodyText string          `json:"body_text"`
			BodyJSON json.RawMessage `json:"body_json"`
		}
	}
}

// differs lists the recorded answers that are not ours, each with the reason.
var differs = map[string]string{
	"admin/route-schema/filter_func-syntax": "Lua is refused without being parsed",
	"router/vars/filter_func":               "Lua is refused",
}

// goldensFile finds the recorded conversations beside the repository.
func goldensFile(t *testing.T) (*os.File, bool) {
	t.Helper()
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			if filepath.Dir(root) == root {
				t.Fatal("no go.mod above the test")
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared")
	}
	file, err := os.Open(filepath.Join(dir, "testdata", "apisix-goldens.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return file, true
}

func TestGoldens(t *testing.T) {
	file, ok := goldensFile(t)
	if !ok {
		t.Log("no recorded conversations here: only the table of this package was run")
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<24)
	pairs := map[string]string{}
	for _, n := range []string{"1", "2"} {
		pairs["CERT"+n], pairs["PKEY"+n] = newPair(t)
	}
	pairs["CA"], _ = newPair(t)
	checked, differed := 0, map[string]bool{}
	for lines.Scan() {
		var g golden
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		w := &world{docs: map[string][]byte{}, pairs: pairs}
		for i, step := range g.Steps {
			if step.On != "admin" || strings.HasPrefix(step.Expect.BodyText, "re:") { // a pattern: the words of a plugin's regexp engine
				continue
			}
			want := step.Expect.Status
			var reply struct {
				Text string `json:"error_msg"`
			}
			if err := json.Unmarshal([]byte(step.Expect.BodyText), &reply); err != nil {
				reply.Text = "" // no JSON, or no text was recorded
			}
			var found struct{ Errors []ConfigError }
			if err := json.Unmarshal(step.Expect.BodyJSON, &found); err == nil && found.Errors != nil {
				raw, err := Encode(found.Errors)
				if err != nil {
					t.Fatal(err)
				}
				reply.Text = string(raw)
			}
			w.expected = reply.Text
			var body []byte
			if step.Body != nil {
				body = []byte(w.fill(*step.Body))
			}
			got, text, applies := w.do(step.Method, w.fill(step.Path), body, want)
			if !applies {
				continue
			}
			checked++
			if want == 500 { // the recorded gateway crashed; a refusal is right
				want = 400
			}
			if _, ok := differs[g.Name]; ok {
				differed[g.Name] = differed[g.Name] || got != want || text != reply.Text
				continue
			}
			if got != want {
				t.Errorf("%s step %d: status %d %q, recorded %d %q", g.Name, i+1, got, text, want, reply.Text)
			} else if reply.Text != "" && text != reply.Text {
				t.Errorf("%s step %d:\n got      %s\n recorded %s", g.Name, i+1, text, reply.Text)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for name := range differs {
		if !differed[name] {
			t.Errorf("%s: the answers are the recorded ones: take it off the exceptions", name)
		}
	}
	if checked < 1300 {
		t.Errorf("only %d recorded answers were checked", checked)
	}
	t.Logf("%d recorded answers checked, %d exceptions", checked, len(differs))
}
