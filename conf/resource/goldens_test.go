package resource

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"headgate/conf/schema"
)

// golden is one recorded conversation with the gateway whose contract this is.
type golden struct {
	Name  string
	Steps []struct {
		On, Method, Path string
		Body             *string
		Expect           struct {
			Status   int
			BodyText string `json:"body_text"`
		}
	}
}

// differs lists the recorded answers that are not ours, each with the reason.
var differs = map[string]string{
	"admin/upstream-schema/discovery-dns":   "service discovery is refused in this version",
	"admin/route-schema/filter_func-syntax": "Lua is refused without being parsed",
	"router/vars/filter_func":               "Lua is refused",
	"admin/ref/tls-client-cert":             "certificates have no documents yet, so their type can't be told",
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
	checked, differed := 0, map[string]bool{}
	for lines.Scan() {
		var g golden
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		w := &world{docs: map[string][]byte{}}
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
			w.expected = reply.Text
			var body []byte
			if step.Body != nil {
				body = []byte(fill(*step.Body))
			}
			got, text, applies := w.do(step.Method, fill(step.Path), body, want)
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
	if checked < 500 {
		t.Errorf("only %d recorded answers were checked", checked)
	}
	t.Logf("%d recorded answers checked, %d exceptions", checked, len(differs))
}

var placeholder = regexp.MustCompile(`\{\{([A-Za-z0-9_]+)\}\}`)

// fill replaces placeholders by values of the right form.
func fill(s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(p string) string {
		name := strings.Trim(p, "{}")
		switch {
		case name == "id":
			return generatedID
		case strings.HasSuffix(name, "_PORT"):
			return "1980"
		case strings.HasPrefix(name, "UP"), strings.HasPrefix(name, "DEAD"), strings.HasPrefix(name, "TLS"):
			return fmt.Sprintf("127.0.0.1:%d", 1900+len(name)*10+int(name[len(name)-1]%10))
		}
		return name
	})
}

const generatedID = "00000000000000000001"

// world does what the Admin API does with this package, over documents in memory. Plugins and vars are judged by what the recording
// says, since they belong to other rooms.
type world struct {
	docs     map[string][]byte
	expected string
}

func (w *world) Exists(key string) bool { _, ok := w.docs[key]; return ok }

func (w *world) KnownPlugin(name string) bool { return name != "nope" }

func (w *world) CheckPlugin(name string, _ any) error {
	if _, text, ok := strings.Cut(w.expected, "failed to check the configuration of plugin "+name+" err: "); ok {
		return errors.New(text)
	}
	return nil
}

func (w *world) CheckVars(any) error {
	if text, ok := strings.CutPrefix(w.expected, "failed to validate the 'vars' expression: "); ok {
		return errors.New(text)
	}
	return nil
}

func (w *world) Range(kind string, f func(string, []byte) bool) {
	keys := make(map[string]any)
	for key := range w.docs {
		keys[key] = nil
	}
	for _, key := range sortedKeys(keys) {
		if strings.HasPrefix(key, kind+"/") && !f(key, w.docs[key]) {
			return
		}
	}
}

// do returns the status and error_msg of one request, or applies=false when the request is not about this package.
func (w *world) do(method, path string, body []byte, recorded int) (status int, text string, applies bool) {
	path, query, _ := strings.Cut(path, "?")
	rest, ok := strings.CutPrefix(path, "/apisix/admin/")
	if !ok || strings.Contains(query, "ttl=") {
		return 0, "", false
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	for i := range parts {
		if parts[i], ok = unescape(parts[i]); !ok {
			return 0, "", false
		}
	}
	k, ok := KindOf(parts[0])
	if !ok {
		if method == "PUT" && recorded < 300 && len(parts) == 2 { // something to refer to
			w.docs[rest] = body
		}
		return 0, "", false
	}
	id, sub := "", []string(nil)
	if len(parts) > 1 {
		id, sub = parts[1], parts[2:]
	}
	if recorded == 401 || recorded == 405 || recorded == 0 || len(body) > 1572864 {
		return 0, "", false
	}
	var refusal *Error
	switch method {
	case "PUT", "POST":
		status, refusal = w.write(k, method, id, body)
	case "PATCH":
		status, refusal = w.patch(k, id, sub, body)
	case "DELETE":
		status, refusal = w.remove(k, id, query == "force=true")
	default:
		return 0, "", false
	}
	if refusal != nil {
		status = refusal.Status
		if !refusal.NotFound {
			text = refusal.Msg
		}
	}
	return status, text, true
}

func unescape(s string) (string, bool) {
	s, err := url.PathUnescape(s)
	return s, err == nil
}

func (w *world) body(verb string, raw []byte) (map[string]any, any, *Error) {
	if len(raw) == 0 {
		_, refusal := CheckBody(verb, nil, false)
		return nil, nil, refusal
	}
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, nil, Invalid("invalid request body: " + err.Error())
	}
	obj, refusal := CheckBody(verb, doc, true)
	return obj, doc, refusal
}

func (w *world) write(k Kind, verb, pathID string, raw []byte) (int, *Error) {
	doc, _, refusal := w.body(verb, raw)
	if refusal != nil {
		return 0, refusal
	}
	id, refusal := CheckID(k, verb, pathID, doc)
	if refusal != nil {
		return 0, refusal
	}
	if refusal := CheckTimes(doc); refusal != nil {
		return 0, refusal
	}
	if refusal := Validate(k, id, doc, w); refusal != nil {
		return 0, refusal
	}
	if verb == "POST" {
		id = generatedID
	}
	return w.save(k, id, doc)
}

func (w *world) save(k Kind, id string, doc map[string]any) (int, *Error) {
	raw, err := Encode(doc)
	if err == nil {
		switch k.Word {
		case "route":
			_, err = DecodeRoute(raw)
		case "service":
			_, err = DecodeService(raw)
		case "upstream":
			_, err = DecodeUpstream(raw)
		}
	}
	if err != nil {
		return 0, &Error{Status: 599, Msg: "validated but not decodable: " + err.Error()}
	}
	status := 201
	if w.Exists(k.Key(id)) {
		status = 200
	}
	w.docs[k.Key(id)] = bytes.Clone(raw)
	return status, nil
}

func (w *world) patch(k Kind, id string, sub []string, raw []byte) (int, *Error) {
	if len(raw) == 0 {
		_, _, refusal := w.body("PATCH", raw)
		return 0, refusal
	}
	change, err := schema.DecodeJSON(raw)
	if err != nil {
		return 0, Invalid("invalid request body: " + err.Error())
	}
	if len(sub) == 0 {
		if _, refusal := CheckBody("PATCH", change, true); refusal != nil {
			return 0, refusal
		}
	}
	if _, refusal := CheckID(k, "PATCH", id, nil); refusal != nil {
		return 0, refusal
	}
	stored, ok := w.docs[k.Key(id)]
	if !ok {
		return 0, KeyNotFound()
	}
	old, err := schema.DecodeJSON(stored)
	if err != nil {
		return 0, &Error{Status: 599, Msg: err.Error()}
	}
	doc := old.(map[string]any)
	if len(sub) > 0 {
		if err := SetPath(doc, sub, change); err != nil {
			return 0, Invalid(err.Error())
		}
	} else {
		doc = Merge(old, change).(map[string]any)
	}
	if _, refusal := CheckID(k, "PATCH", id, doc); refusal != nil {
		return 0, refusal
	}
	if refusal := Validate(k, id, doc, w); refusal != nil {
		return 0, refusal
	}
	return w.save(k, id, doc)
}

func (w *world) remove(k Kind, pathID string, force bool) (int, *Error) {
	id, refusal := CheckID(k, "DELETE", pathID, nil)
	if refusal != nil {
		return 0, refusal
	}
	if !force {
		if refusal := CheckUnused(k, id, w); refusal != nil {
			return 0, refusal
		}
	}
	if !w.Exists(k.Key(id)) {
		return 0, KeyNotFound()
	}
	delete(w.docs, k.Key(id))
	return 200, nil
}
