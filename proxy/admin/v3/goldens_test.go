package v3

import (
	"bufio"
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
		BodySubset    json.RawMessage `json:"body_json_subset"`
		Ignore        []string
	}
}

// differs lists conversations whose answers are not ours, with the reason.
var differs = map[string]string{
	"admin/route-schema/filter_func-syntax": "Lua is refused without being parsed",
	"admin/ssls/short-cert":                 "two mistakes at once: which of them is told has no order there, and the order of the names here",
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
	passed, different, answers := 0, 0, 0
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, `{"name":"admin/`) && !strings.HasPrefix(line, `{"name":"control/`) {
			continue
		}
		var g golden
		if err := json.Unmarshal([]byte(line), &g); err != nil {
			t.Fatal(err)
		}
		switch {
		case !replayed(g):
			continue
		case differs[g.Name] != "":
			different++
			continue
		}
		answers += len(g.Steps)
		if t.Run(g.Name, func(t *testing.T) {
			replay(t, g, true)
			if g.Quirk != "" {
				replay(t, g, false)
			}
		}) {
			passed++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if passed+different < 420 {
		t.Errorf("only %d conversations were replayed", passed+different)
	}
	t.Logf("%d conversations passed with %d answers, %d differ on purpose", passed, answers, different)
}

// replayed leaves out what needs a data plane.
func replayed(g golden) bool {
	return !slices.ContainsFunc(g.Steps, func(s goldenStep) bool { return s.On != "admin" && s.On != "control" })
}

var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}`)

// replay runs a conversation with an API that gives the pages of the recorded gateway's failures, or with one that does not.
func replay(t *testing.T, g golden, pages bool) {
	sealer := testSealer(t)
	h := start(t, func(o *Options) { o.HTMLErrors, o.Sealer = pages, sealer })
	values := map[string]string{
		"CERT1": pairs()[0].cert, "PKEY1": pairs()[0].key, "CERT2": pairs()[1].cert, "PKEY2": pairs()[1].key, "CA": pairs()[0].cert, "UNIQ": "u1",
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
	fillJSON := func(s string) string { // PEM has line ends
		return placeholder.ReplaceAllStringFunc(s, func(p string) string {
			text, err := json.Marshal(fill(p))
			if err != nil {
				t.Fatal(err)
			}
			return strings.Trim(string(text), `"`)
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
			body = fillJSON(*s.Body)
		}
		target := strings.ReplaceAll(fill(s.Path), " ", "%20")
		var a answer
		if s.On == "control" {
			a = h.control(s.Method, target)
		} else {
			a = h.do(s.Method, target, body, headers...)
		}
		want := s.Expect
		if g.Quirk != "" && want.Status == 500 && !pages { // the recorded gateway crashed; a refusal in JSON is right
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
		if text := want.BodyText; text != nil && strings.HasPrefix(*text, "re:") {
			if !regexp.MustCompile("^(?s:" + (*text)[3:] + ")\\s*$").MatchString(a.body) {
				t.Errorf("step %d: got %s, recorded %s", i+1, a.body, *text)
			}
		} else if text != nil && a.body != fill(*text) {
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
			sameJSON(t, i+1, a.body, fillJSON(string(want.BodyJSON)))
		}
		if len(want.BodySubset) > 0 {
			hasJSON(t, i+1, a.body, fillJSON(string(want.BodySubset)))
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

// hasJSON checks that everything in want is in got.
func hasJSON(t *testing.T, step int, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("step %d: %v in %s", step, err, got)
		return
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if where := lacks("", g, w); where != "" {
		t.Errorf("step %d: %s differs in %s", step, where, got)
	}
}

func lacks(path string, got, want any) string {
	w, ok := want.(map[string]any)
	if !ok {
		if !reflect.DeepEqual(got, want) {
			return path
		}
		return ""
	}
	g, ok := got.(map[string]any)
	if !ok {
		return path
	}
	for name, v := range w {
		member, has := g[name]
		if !has {
			return path + "." + name
		}
		if where := lacks(path+"."+name, member, v); where != "" {
			return where
		}
	}
	return ""
}
