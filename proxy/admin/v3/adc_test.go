package v3

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/conf/store/mem"
	"headgate/proxy"
	"headgate/proxy/meter"
	"headgate/proxy/offload"
	"headgate/proxy/route"
	"headgate/proxy/snapshot"
	"headgate/proxy/upstream"
)

// startWhole runs the API on a config path with a compiler and a store.
func startWhole(t *testing.T) *harness {
	t.Helper()
	m := meter.New("")
	hub := upstream.NewHub(upstream.NewResolver(time.Minute), nil)
	c, err := snapshot.NewCompiler(&snapshot.Live{}, snapshot.Options{
		Kinds: standIns(), Hub: hub, Meter: m, Mode: route.Mode(0),
		Defaults: upstream.Defaults{Connect: time.Second, Send: time.Second, Read: time.Second, Pool: upstream.PoolOptions{Size: 1, MaxRequests: 1}, MaxHead: 4096},
	})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := offload.New(1, func(p any) { t.Errorf("background task: %v", p) })
	if err != nil {
		t.Fatal(err)
	}
	s := mem.Open()
	applier, err := proxy.StartApplier(context.Background(), proxy.ApplierOptions{
		Compiler: c, Store: s, Offload: pool, Meter: m, Logf: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		applier.Close()
		c.Close()
		hub.Close()
		if err := pool.Close(time.Second); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return start(t, func(o *Options) { o.Plane, o.Checks, o.Plugins = applier, c, c })
}

// adc makes the calls of the tool that operators keep their configuration with (contract sections 7.1 to 7.3).
type adc struct {
	*harness
	cached map[string]any // standalone: the document of the last dump
}

const jsonType = "Content-Type: application/json"

func (c *adc) json(method, path string, body any) (int, map[string]any) {
	c.t.Helper()
	text := ""
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		text = string(raw)
	}
	a := c.do(method, path, text, jsonType)
	var doc map[string]any
	if len(a.body) > 0 {
		if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
			c.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
		}
	}
	return a.status, doc
}

// version is what the tool chooses its dialect by; nothing readable means the newest.
func version(a answer) string {
	found := regexp.MustCompile(`APISIX/(.*)`).FindStringSubmatch(a.header.Get("Server"))
	if found == nil {
		return "999.999.999"
	}
	return found[1]
}

// adcKinds in the order in which the tool writes; deletions go the other way.
var adcKinds = []string{"plugin_metadata", "global_rules", "ssls", "upstreams", "services", "plugin_configs", "routes", "consumers"}

// documents is a configuration as the tool sees it: by path below the root.
type documents map[string]map[string]any

// dump reads everything as the backend for the Admin API does, in the transform that drops what it does not know.
func (c *adc) dump() documents {
	c.t.Helper()
	all := documents{}
	for _, kind := range adcKinds {
		status, doc := c.json("GET", "/apisix/admin/"+kind, nil)
		list, isArray := doc["list"].([]any)
		if status != 200 || !isArray {
			c.t.Fatalf("list of %s: %d %v", kind, status, doc)
		}
		for _, item := range list {
			item := item.(map[string]any)
			value := item["value"].(map[string]any)
			name, _ := value["id"].(string)
			switch kind {
			case "plugin_metadata":
				key := item["key"].(string)
				name = key[strings.LastIndexByte(key, '/')+1:]
			case "consumers":
				name = value["username"].(string)
				c.credentials(all, name)
			}
			all[kind+"/"+name] = known(value)
		}
	}
	if status, _ := c.json("GET", "/apisix/admin/stream_routes", nil); status < 400 {
		c.t.Error("stream routes")
	}
	return all
}

func (c *adc) credentials(all documents, user string) {
	status, doc := c.json("GET", "/apisix/admin/consumers/"+user+"/credentials", nil)
	if status == 404 {
		return
	}
	for _, item := range doc["list"].([]any) {
		value := item.(map[string]any)["value"].(map[string]any)
		all["consumers/"+user+"/credentials/"+value["id"].(string)] = known(value)
	}
}

func known(value map[string]any) map[string]any {
	value = maps.Clone(value)
	delete(value, "create_time")
	delete(value, "update_time")
	return value
}

// diff returns the paths that must be written and deleted to make remote what local is.
func (local documents) diff(remote documents) (put, remove []string) {
	for _, path := range slices.Sorted(maps.Keys(local)) {
		if there, ok := remote[path]; !ok || !reflect.DeepEqual(there, local[path]) {
			put = append(put, path)
		}
	}
	for path := range remote {
		if _, ok := local[path]; !ok {
			remove = append(remove, path)
		}
	}
	rank := func(path string) int { return slices.Index(adcKinds, path[:strings.IndexByte(path, '/')]) }
	slices.SortStableFunc(put, func(a, b string) int { return rank(a) - rank(b) })
	slices.SortFunc(remove, func(a, b string) int {
		if rank(a) != rank(b) {
			return rank(b) - rank(a)
		}
		return strings.Compare(b, a) // credentials before their consumer
	})
	return put, remove
}

// sync writes the difference, one document at a time.
func (c *adc) sync(local documents) (written int) {
	c.t.Helper()
	put, remove := local.diff(c.dump())
	for _, path := range remove {
		if status, doc := c.json("DELETE", "/apisix/admin/"+path, nil); status != 200 {
			c.t.Errorf("DELETE %s: %d %v", path, status, doc)
		}
	}
	for _, path := range put {
		if status, doc := c.json("PUT", "/apisix/admin/"+path, local[path]); status != 200 && status != 201 {
			c.t.Errorf("PUT %s: %d %v", path, status, doc)
		}
	}
	return len(put) + len(remove)
}

func hash(name string) string {
	sum := sha1.Sum([]byte(name))
	return hex.EncodeToString(sum[:])
}

// local is a configuration as the tool turns files into documents: ids are hashes of names, a service has its upstream beside it.
func local(t *testing.T, certs bool) documents {
	t.Helper()
	service, path := hash("shop"), hash("shop.cart")
	text := fmt.Sprintf(`{
	 "upstreams/%[1]s":{"id":"%[1]s","name":"shop","type":"roundrobin","scheme":"http","pass_host":"pass","nodes":[{"host":"127.0.0.1","port":80,"weight":100}],
	  "timeout":{"connect":6,"send":6,"read":6.5},"retries":0},
	 "services/%[1]s":{"id":"%[1]s","name":"shop","upstream_id":"%[1]s","hosts":["shop.example"],"labels":{"managed-by":"x"},"plugins":{}},
	 "routes/%[2]s":{"id":"%[2]s","name":"cart","uris":["/cart","/cart/*"],"methods":["GET","POST"],"service_id":"%[1]s","enable_websocket":false,
	  "vars":[["arg_v","==","2"]],"priority":10,"status":1,"labels":{},"plugins":{"cors":{"allow_origins":"*","extra":[],"more":{}},
	  "traffic-split":{"rules":[{"weighted_upstreams":[{"weight":1}]}]}}},
	 "consumers/jack":{"username":"jack","labels":{"team":"a"},"plugins":{"limit-count":{"count":1,"time_window":60}}},
	 "consumers/jack/credentials/%[3]s":{"id":"%[3]s","name":"primary","plugins":{"key-auth":{"key":"jack-key"}}},
	 "global_rules/prometheus":{"id":"prometheus","plugins":{"prometheus":{"prefer_name":true}}},
	 "plugin_metadata/http-logger":{"id":"http-logger","log_format":{"host":"$host","@timestamp":"$time_iso8601"}}}`, service, path, hash("jack.primary"))
	var all documents
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	if certs {
		id := hash("gold.test")
		all["ssls/"+id] = map[string]any{"id": id, "type": "server", "snis": []any{"gold.test"}, "cert": pairs()[0].cert, "key": pairs()[0].key}
	}
	return all
}

func TestADC(t *testing.T) {
	c := &adc{harness: startWhole(t)}
	a := c.do("GET", "/apisix/admin/routes", "", jsonType)
	if a.status != 200 || version(a) != "3.18.0" {
		t.Fatalf("ping: %d, version %s", a.status, version(a))
	}
	want := local(t, false)
	if status, doc := c.json("POST", "/apisix/admin/configs/validate", validation(want)); status != 200 || len(doc) != 0 {
		t.Errorf("validate: %d %v", status, doc)
	}
	if n := c.sync(want); n != len(want) {
		t.Errorf("%d documents were written", n)
	}
	if got := c.dump(); !reflect.DeepEqual(got, want) {
		for path := range want {
			if !reflect.DeepEqual(got[path], want[path]) {
				t.Errorf("%s\n got  %v\n want %v", path, got[path], want[path])
			}
		}
	}
	if n := c.sync(want); n != 0 {
		t.Errorf("a second sync writes %d documents", n)
	}
	path := "routes/" + hash("shop.cart")
	want[path]["priority"] = 11.0
	delete(want, "global_rules/prometheus")
	delete(want, "consumers/jack/credentials/"+hash("jack.primary"))
	if n := c.sync(want); n != 3 {
		t.Errorf("a change of three documents writes %d", n)
	}
	if n := c.sync(documents{}); n != len(want) {
		t.Errorf("%d documents were deleted of %d", n, len(want))
	}
	bad := validation(documents{"routes/1": {"id": "1"}, "upstreams/1": {"id": "1", "type": "nope!", "nodes": []any{}}})
	status, doc := c.json("POST", "/apisix/admin/configs/validate", bad)
	mistakes, _ := doc["errors"].([]any)
	if status != 400 || doc["error_msg"] != "Configuration validation failed" || len(mistakes) == 0 {
		t.Fatalf("validate: %d %v", status, doc)
	}
	first := mistakes[len(mistakes)-1].(map[string]any)
	if first["resource_type"] != "routes" || first["index"] != 0.0 || first["error"] == "" {
		t.Errorf("mistake %v", first)
	}
}

// The tool compares certificates by what the API shows: keys never come back.
func TestADCWritesCertificates(t *testing.T) {
	c := &adc{harness: startWhole(t)}
	want := local(t, true)
	c.sync(want)
	id := "ssls/" + hash("gold.test")
	got := c.dump()[id]
	wanted := maps.Clone(want[id])
	delete(wanted, "key")
	if !reflect.DeepEqual(got, wanted) {
		t.Errorf("got %v", got)
	}
}

// validation is the body of configs/validate: all eight arrays, whether they hold something or not.
func validation(all documents) map[string]any {
	body := map[string]any{}
	for _, kind := range []string{"routes", "services", "consumers", "ssls", "global_rules", "stream_routes", "plugin_metadata", "upstreams"} {
		body[kind] = []any{}
	}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		kind, id, _ := strings.Cut(path, "/")
		item := maps.Clone(all[path])
		if strings.Contains(id, "/credentials/") {
			item["id"] = id
		}
		body[kind] = append(body[kind].([]any), item)
	}
	return body
}

// dumpWhole reads everything as the standalone backend does.
func (c *adc) dumpWhole() documents {
	c.t.Helper()
	status, doc := c.json("GET", configsPath, nil)
	if status != 200 {
		c.t.Fatalf("dump: %d", status)
	}
	c.cached = doc
	all := documents{}
	for _, kind := range adcKinds {
		list, _ := doc[kind].([]any)
		for _, item := range list {
			item := known(item.(map[string]any))
			id, _ := item["id"].(string)
			if short, ok := cutCredential(id); ok {
				item["id"] = short
			} else if kind == "consumers" {
				id = item["username"].(string)
			}
			all[kind+"/"+id] = item
		}
	}
	return all
}

func cutCredential(id string) (short string, ok bool) {
	_, short, ok = strings.Cut(id, "/credentials/")
	return short, ok
}

// syncWhole sends the whole configuration: types that differ get a new version, the others keep theirs.
func (c *adc) syncWhole(want documents) (status int) {
	c.t.Helper()
	put, remove := want.diff(c.dumpWhole())
	differ := map[string]bool{}
	for _, path := range append(put, remove...) {
		kind, _, _ := strings.Cut(path, "/")
		differ[kind] = true
	}
	stamp := c.now().UnixMilli()
	body := validation(want)
	for _, kind := range adcKinds {
		member := kind + "_conf_version"
		if !differ[kind] {
			body[member] = c.cached[member]
			continue
		}
		body[member] = stamp
		for _, item := range body[kind].([]any) {
			item.(map[string]any)["modifiedIndex"] = stamp
		}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := c.do("PUT", configsPath, string(raw), jsonType, "X-Digest: "+hash(string(raw)))
	if a.status != 202 && a.status != 204 {
		c.t.Fatalf("sync: %d %s", a.status, a.body)
	}
	return a.status
}

func TestADCStandalone(t *testing.T) {
	c := &adc{harness: startWhole(t)}
	c.key = ""
	if a := c.do("HEAD", "/apisix/admin", ""); a.status != 200 || version(a) != "3.18.0" {
		t.Errorf("version %d %s", a.status, version(a))
	}
	c.key = adminKey
	if a := c.do("HEAD", configsPath, ""); a.status != 200 || a.header.Get("X-Last-Modified") != "" {
		t.Errorf("before the first sync\n%s", a.raw)
	}
	want := local(t, false)
	if status, doc := c.json("POST", configsPath+"/validate", validation(want)); status != 200 {
		t.Errorf("validate: %d %v", status, doc)
	}
	if status := c.syncWhole(want); status != 202 {
		t.Errorf("sync: %d", status)
	}
	if a := c.do("HEAD", configsPath, ""); a.header.Get("X-Last-Modified") != "1700000000" {
		t.Errorf("after a sync\n%s", a.raw)
	}
	if got := c.dumpWhole(); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got  %v\n want %v", got, want)
	}
	before := c.revisions()
	c.advance(time.Second)
	path := "routes/" + hash("shop.cart")
	want[path]["priority"] = 11.0
	c.syncWhole(want)
	for key, revision := range c.revisions() {
		if changed := revision != before[key]; changed != (key == "/apisix/"+path) {
			t.Errorf("%s: revision %v, before %v", key, revision, before[key])
		}
	}
	if got := c.dumpWhole(); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got  %v\n want %v", got, want)
	}
	c.advance(time.Second)
	c.syncWhole(documents{})
	if got := c.dumpWhole(); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// revisions reads them through the other door.
func (c *adc) revisions() map[string]any {
	all := map[string]any{}
	for _, kind := range adcKinds {
		_, doc := c.json("GET", "/apisix/admin/"+kind, nil)
		for _, item := range doc["list"].([]any) {
			item := item.(map[string]any)
			all[item["key"].(string)] = item["modifiedIndex"]
		}
	}
	return all
}
