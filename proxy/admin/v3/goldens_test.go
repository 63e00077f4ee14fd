package v3

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The recorded conversations with the gateway whose contract this is. They are replayed where they need neither a data plane nor
// kinds that don't exist yet.

type golden struct {
	Name, Quirk string
	Steps       []goldenStep
}

type goldenStep struct {
	On, Method, Path string
	Body             *string
	Key              string
	Headers          map[string]string
	Save             map[string]string
	SleepBefore      float64 `json:"sleep_before"`
	Expect           struct {
		Status        int
		Headers       map[string]string
		HeadersAbsent []string        `json:"headers_absent"`
		BodyText      *string         `json:"body_text"`
		BodyContains  []string        `json:"body_contains"`
		BodyRe        []string        `json:"body_re"`
		BodyJSON      json.RawMessage `json:"body_json"`
		Ignore        []string
	}
}

var replayedGroups = []string{
	"auth", "body", "dialect", "filter", "http", "id", "list", "paging", "patch", "ref", "routes", "services", "stream_routes", "ttl",
	"upstreams",
}

// differs lists conversations that are not replayed, with the reason.
var differs = map[string]string{
	"admin/services/unknown-plugin": "needs the schema of a plugin",
}

func goldensFile(t *testing.T) (*os.File, bool) {
	t.Helper()
	dir := os.Getenv("HEADGATE_SHARED")
	if dir == "" {
		root, err := filepath.Abs(".")
		if err != nil {
			t.Fatal(err)
		}
		for root != filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
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
		t.Log("no recorded conversations here: only the tables of this package were run")
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<24)
	conversations, answers := 0, 0
	for lines.Scan() {
		var g golden
		if !bytes.HasPrefix(lines.Bytes(), []byte(`{"name":"admin/`)) {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		if !replayed(g) {
			continue
		}
		conversations++
		answers += len(g.Steps)
		t.Run(g.Name, func(t *testing.T) { replay(t, g) })
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if conversations < 130 {
		t.Errorf("only %d conversations were replayed", conversations)
	}
	t.Logf("%d conversations, %d answers", conversations, answers)
}

func replayed(g golden) bool {
	name := strings.Split(g.Name, "/")
	if name[0] != "admin" || !slices.Contains(replayedGroups, name[1]) || differs[g.Name] != "" {
		return false
	}
	for _, s := range g.Steps {
		// Documents of other kinds that a conversation only starts from.
		for _, kind := range []string{"plugin_configs", "consumer", "global_rules", "protos", "ssls", "secrets"} {
			if s.On != "admin" || strings.HasPrefix(s.Path, "/apisix/admin/"+kind) {
				return false
			}
		}
	}
	return true
}

var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}`)

func replay(t *testing.T, g golden) {
	h := start(t)
	values := map[string]string{
		"UP1": "127.0.0.1:1980", "UP2": "127.0.0.1:1981", "UP3": "127.0.0.1:1982", "DEAD": "127.0.0.1:1", "KEY": adminKey,
		"UP1_PORT": "1980",
	}
	fill := func(s string) string {
		return placeholder.ReplaceAllStringFunc(s, func(p string) string {
			v, ok := values[strings.Trim(p, "{}")]
			if !ok {
				t.Fatalf("unknown placeholder %s", p)
			}
			return v
		})
	}
	for i, s := range g.Steps {
		h.advance(time.Duration(s.SleepBefore * float64(time.Second)))
		h.key = adminKey
		switch s.Key {
		case "none":
			h.key = ""
		case "viewer":
			h.key = viewerKey
		}
		var headers []string
		for name, value := range s.Headers {
			headers = append(headers, name+": "+fill(value))
		}
		body := ""
		if s.Body != nil {
			body = fill(*s.Body)
		}
		target := strings.ReplaceAll(fill(s.Path), " ", "%20")
		a := h.do(s.Method, target, body, headers...)
		want := s.Expect
		if g.Quirk != "" && want.Status == 500 { // the recorded gateway crashed; a refusal in JSON is right
			if a.status < 400 || a.status > 499 || !json.Valid([]byte(a.body)) {
				t.Errorf("step %d: got %d %s, want a refusal", i+1, a.status, a.body)
			}
			continue
		}
		if a.status != want.Status {
			t.Errorf("step %d %s %s: status %d %s, recorded %d", i+1, s.Method, s.Path, a.status, a.body, want.Status)
			continue
		}
		for name, value := range want.Headers {
			if got := a.header.Get(name); got != value {
				t.Errorf("step %d: %s is %q, recorded %q", i+1, name, got, value)
			}
		}
		for _, name := range want.HeadersAbsent {
			if _, ok := a.header[name]; ok || a.header.Get(name) != "" {
				t.Errorf("step %d: header %s was recorded as absent", i+1, name)
			}
		}
		if want.BodyText != nil && a.body != fill(*want.BodyText) {
			t.Errorf("step %d:\n got      %s\n recorded %s", i+1, a.body, *want.BodyText)
		}
		for _, part := range want.BodyContains {
			if !strings.Contains(a.body, fill(part)) {
				t.Errorf("step %d: %s is not in %s", i+1, part, a.body)
			}
		}
		for _, expression := range want.BodyRe {
			if !regexp.MustCompile(expression).MatchString(a.body) {
				t.Errorf("step %d: %s does not match %s", i+1, expression, a.body)
			}
		}
		if len(want.BodyJSON) > 0 {
			sameJSON(t, i+1, a.body, fill(string(want.BodyJSON)))
		}
		for name, source := range s.Save {
			values[name] = url.PathEscape(lookup(a.body, strings.TrimPrefix(source, "json:")))
		}
	}
}

func lookup(body, path string) string {
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return ""
	}
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	s, _ := v.(string)
	return s
}

// sameJSON compares documents; "<any>" in the recorded one stands for anything that is there.
func sameJSON(t *testing.T, step int, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("step %d: %v in %s", step, err, got)
		return
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(mask(g, w), w) {
		t.Errorf("step %d:\n got      %s\n recorded %s", step, got, want)
	}
}

// mask writes "<any>" into got wherever want has it.
func mask(got, want any) any {
	if want == "<any>" {
		return want
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return got
		}
		masked := make(map[string]any, len(g))
		for name, v := range g {
			masked[name] = mask(v, w[name])
		}
		return masked
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return got
		}
		masked := make([]any, len(g))
		for i := range g {
			masked[i] = mask(g[i], w[i])
		}
		return masked
	}
	return got
}
