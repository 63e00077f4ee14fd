package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"headgate/conf"
)

const (
	randomRequests = 10_000
	// randomSeedEnv makes TestRandomDocuments repeat a run.
	randomSeedEnv  = "HEADGATE_RANDOM_SEED"
	randomSeed     = 20_240_229
	randomLookEach = 20  // requests between two looks at the fixed route
	randomDumpEach = 500 // requests between two comparisons of everything
)

// TestRandomDocuments writes random documents, two thirds of them valid: GET returns what PUT sent, whatever is refused changes nothing,
// DELETE deletes, and a route that nobody touches is served all the time, with its split where it was.
func TestRandomDocuments(t *testing.T) {
	seed := uint64(randomSeed)
	if text := os.Getenv(randomSeedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", randomSeedEnv, err)
		}
	}
	t.Logf("%s=%d", randomSeedEnv, seed)
	v1, v2 := newUpstream(t, "v1", nil), newUpstream(t, "v2", nil)
	c := onLoopback(t, conf.Default())
	c.Audit.Path = "off"
	s := &randomSession{t: t, gate: startGate(t, c), model: map[string]object{}, counts: map[string]int{}}
	s.docs = newRandomDocuments(t, seed, s.ids)
	s.configure("PUT", "/routes/fixed", splitBetween("/fixed", v1.addr, v2.addr))
	fixed := 0
	for n := range randomRequests {
		s.step()
		if n%randomLookEach == 0 {
			fixed++
			if a := s.send("GET", "http://"+s.addr+"/fixed", ""); a.status != http.StatusOK || a.body != "v1\n" && a.body != "v2\n" {
				t.Fatalf("after %d requests the fixed route answers %v", n+1, a)
			}
		}
		if n%randomDumpEach == 0 {
			s.compare()
		}
		if t.Failed() {
			t.Fatalf("request %d of %s=%d", n+1, randomSeedEnv, seed)
		}
	}
	s.compare()
	if one, two := v1.hits(), v2.hits(); one+two != fixed || max(one-two, two-one) > 1 {
		t.Errorf("%d requests were split into %d and %d; other documents must not touch the split", fixed, one, two)
	}
	for _, text := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%6d %s", s.counts[text], text)
	}
	for _, what := range []string{"created", "replaced", "deleted", "in use"} {
		if s.counts[what] < 100 {
			t.Errorf("only %d documents were %s", s.counts[what], what)
		}
	}
}

// splitBetween is a route whose requests go to two upstreams in turns.
func splitBetween(uri, one, two string) string {
	return fmt.Sprintf(`{"uri":%q,"upstream":{"nodes":{%q:1}},"plugins":{"traffic-split":{"rules":[{"weighted_upstreams":[`+
		`{"upstream":{"nodes":{%q:1}},"weight":1},{"weight":1}]}]}}}`, uri, one, two)
}

type randomSession struct {
	*gate
	t      *testing.T
	docs   *randomDocuments
	model  map[string]object // what must be stored, by key, without times
	counts map[string]int
}

// ids returns the ids of a kind that exist.
func (s *randomSession) ids(kind string) []string {
	var ids []string
	for key := range s.model {
		if id, ok := strings.CutPrefix(key, kind+"/"); ok && (kind == "secrets" || !strings.Contains(id, "/")) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// keyOf returns the key of a document; credentials stand below their consumer.
func keyOf(kind, id string) string {
	if kind == "credentials" {
		return "consumers/" + id
	}
	return kind + "/" + id
}

// encoded is the text of a document.
func encoded(t testing.TB, doc any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// step makes one request, and the requests that look at what it did.
func (s *randomSession) step() {
	kind := s.docs.kind()
	id := s.docs.id(kind)
	key := keyOf(kind, id)
	switch n := s.docs.IntN(30); {
	case n < 4:
		s.remove(kind, key)
	case n < 18:
		s.put(kind, id, s.docs.valid(kind, id))
	case n < 20 && slices.Contains([]string{"routes", "services", "upstreams", "ssls", "protos"}, kind):
		s.post(kind)
	default:
		s.invalid(kind, id)
	}
}

// put writes a valid document.
func (s *randomSession) put(kind, id string, doc object) {
	key := keyOf(kind, id)
	body := encoded(s.t, doc)
	if kind == "credentials" && s.model["consumers/"+id[:strings.IndexByte(id, '/')]] == nil {
		s.refused("a credential of nobody", "PUT", "/"+key, body, key)
		return
	}
	if plugin := s.taken(kind, key, doc); plugin != "" {
		s.refused("a plugin of another global rule", "PUT", "/"+key, body, key)
		return
	}
	_, had := s.model[key]
	path := "/" + key
	if kind == "consumers" && s.docs.IntN(2) == 0 {
		path = "/consumers"
	}
	a := s.admin("PUT", path, body)
	if want := map[bool]int{false: http.StatusCreated, true: http.StatusOK}[had]; a.status != want {
		s.t.Errorf("PUT %s %s\n%v, want %d", path, body, a, want)
		return
	}
	s.counts[map[bool]string{false: "created", true: "replaced"}[had]]++
	s.stored(kind, id, doc)
	s.check(key)
}

// taken returns the plugin of a global rule that another one has.
func (s *randomSession) taken(kind, key string, doc object) string {
	if kind != "global_rules" {
		return ""
	}
	plugins, _ := doc["plugins"].(object)
	for plugin := range plugins {
		for other, rule := range s.model {
			has, _ := rule["plugins"].(object)
			if strings.HasPrefix(other, "global_rules/") && other != key && has[plugin] != nil {
				return plugin
			}
		}
	}
	return ""
}

// stored notes what has to be there from now on.
func (s *randomSession) stored(kind, id string, doc object) {
	doc = maps.Clone(doc)
	switch kind {
	case "consumers":
	case "secrets":
		doc["id"] = id
	default:
		doc["id"] = id[strings.LastIndexByte(id, '/')+1:]
	}
	if kind == "ssls" {
		delete(doc, "key")
	}
	s.model[keyOf(kind, id)] = doc
}

// post lets the gateway choose the id.
func (s *randomSession) post(kind string) {
	doc := s.docs.valid(kind, "")
	delete(doc, "id")
	a := s.admin("POST", "/"+kind, encoded(s.t, doc))
	var got struct{ Key string }
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusCreated {
		s.t.Errorf("POST %s %s\n%v", kind, encoded(s.t, doc), a)
		return
	}
	s.counts["posted"]++
	id := strings.TrimPrefix(got.Key, "/apisix/"+kind+"/")
	s.stored(kind, id, doc)
	s.check(kind + "/" + id)
	s.remove(kind, kind+"/"+id)
}

// shownValue is what an answer of the Admin API shows, without times.
func (s *randomSession) shownValue(a answer) object {
	s.t.Helper()
	d := json.NewDecoder(strings.NewReader(a.body))
	d.UseNumber()
	var got struct{ Value object }
	if err := d.Decode(&got); err != nil {
		s.t.Fatalf("%v: %v", a, err)
	}
	delete(got.Value, "create_time")
	delete(got.Value, "update_time")
	return got.Value
}

// check makes sure that GET returns what was sent.
func (s *randomSession) check(key string) {
	s.t.Helper()
	a := s.admin("GET", "/"+key, "")
	want, exists := s.model[key]
	if !exists {
		if a.status != http.StatusNotFound {
			s.t.Errorf("GET %s: %v, want 404", key, a)
		}
		return
	}
	if a.status != http.StatusOK {
		s.t.Errorf("GET %s: %v", key, a)
		return
	}
	if diff := cmp.Diff(plain(want), plain(s.shownValue(a))); diff != "" {
		s.t.Errorf("GET %s returns something else than was sent:\n%s", key, diff)
	}
}

// plain returns v in the types of a decoded document.
func plain(v any) any {
	switch v := v.(type) {
	case object:
		m := make(object, len(v))
		for name, e := range v {
			m[name] = plain(e)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = plain(e)
		}
		return list
	}
	return v
}

// remove deletes a document, which is refused while another refers to it.
func (s *randomSession) remove(kind, key string) {
	s.t.Helper()
	_, exists := s.model[key]
	user := s.user(key)
	switch {
	case !exists:
		s.refused("a deletion of nothing", "DELETE", "/"+key, "", key)
	case user != "":
		s.counts["in use"]++
		s.refused("a deletion of what "+user[:strings.IndexByte(user, '/')]+" use", "DELETE", "/"+key, "", key)
	default:
		if a := s.admin("DELETE", "/"+key, ""); a.status != http.StatusOK {
			s.t.Errorf("DELETE %s: %v", key, a)
			return
		}
		s.counts["deleted"]++
		delete(s.model, key)
		s.check(key)
		if kind == "consumers" {
			for other := range s.model {
				if strings.HasPrefix(other, key+"/") {
					delete(s.model, other)
					s.check(other)
				}
			}
		}
	}
}

// user returns the key of a document that refers to key, "" when there is none.
func (s *randomSession) user(key string) string {
	kind, id, _ := strings.Cut(key, "/")
	member := map[string]string{
		"upstreams": "upstream_id", "services": "service_id", "plugin_configs": "plugin_config_id", "consumer_groups": "group_id",
	}[kind]
	if member == "" {
		return ""
	}
	for _, other := range slices.Sorted(maps.Keys(s.model)) {
		if doc := s.model[other]; doc[member] == id || kind == "upstreams" && splits(doc, id) {
			return other
		}
	}
	return ""
}

// splits reports whether the traffic-split of doc leads to the upstream id.
func splits(doc object, id string) bool {
	plugins, _ := doc["plugins"].(object)
	conf, _ := plugins["traffic-split"].(object)
	rules, _ := conf["rules"].([]any)
	for _, rule := range rules {
		for _, branch := range rule.(object)["weighted_upstreams"].([]any) {
			if branch.(object)["upstream_id"] == id {
				return true
			}
		}
	}
	return false
}

// refused makes a request that has to be refused with a 4xx and must not change anything.
func (s *randomSession) refused(why, method, path, body, key string) {
	s.t.Helper()
	revision := s.applier.Revision()
	a := s.admin(method, path, body)
	var said map[string]any
	if err := json.Unmarshal([]byte(a.body), &said); err != nil || a.status < 400 || a.status > 499 ||
		said["error_msg"] == nil && said["message"] == nil {
		s.t.Errorf("%s: %s %s %s\n%v, want a 4xx with a reason", why, method, path, body, a)
		return
	}
	s.counts["refused: "+why]++
	if got := s.applier.Revision(); got != revision {
		s.t.Errorf("%s: %s %s %s was refused and is in force: revision %d after %d", why, method, path, body, got, revision)
	}
	s.check(key)
}

// compare looks at all documents through the lists.
func (s *randomSession) compare() {
	s.t.Helper()
	want := map[string]any{}
	for key, doc := range s.model {
		if !strings.Contains(key, "/credentials/") {
			want[key] = plain(doc)
		}
	}
	got := map[string]any{}
	for _, kind := range []string{
		"upstreams", "services", "routes", "plugin_configs", "consumer_groups", "consumers", "global_rules", "plugin_metadata", "ssls", "secrets", "protos",
	} {
		d := json.NewDecoder(strings.NewReader(s.admin("GET", "/"+kind, "").body))
		d.UseNumber()
		var list struct {
			List []struct {
				Key   string
				Value object
			}
			Total int
		}
		if err := d.Decode(&list); err != nil || list.Total != len(list.List) {
			s.t.Fatalf("GET /%s: %v, %d of %d", kind, err, len(list.List), list.Total)
		}
		for _, item := range list.List {
			delete(item.Value, "create_time")
			delete(item.Value, "update_time")
			if key := strings.TrimPrefix(item.Key, "/apisix/"); key != "routes/fixed" {
				got[key] = plain(item.Value)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("the lists show something else than was sent:\n%s", diff)
	}
}
