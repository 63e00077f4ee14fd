package v3

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/conf/store"
	"headgate/proxy"
	"headgate/proxy/phase"
)

// standIn is what these tests know of plugins: enough schema to be told apart.
func standIn(name string, properties string, consumer *phase.ConsumerKind) phase.Kind {
	priority, _ := resource.KnownPlugin(name)
	text := `{"type":"object"}`
	if properties != "" {
		text = `{"type":"object","properties":{` + properties + `}}`
	}
	return phase.Kind{
		Name: name, Priority: priority, Schema: []byte(text), Consumer: consumer,
		Build: func([]byte, phase.Env) (any, error) { return passes{}, nil },
	}
}

type passes struct{}

func (passes) Access(*phase.Exchange) phase.Verdict { return phase.Continue }

func identity(member, text string) *phase.ConsumerKind {
	return &phase.ConsumerKind{
		Identity: member, Schema: []byte(text), Build: func([]byte) (any, error) { return nil, nil },
	}
}

// standIns lists the plugins by priority.
func standIns() []phase.Kind {
	jwt := identity("key", `{"type":"object","properties":{"key":{"type":"string"},"algorithm":{"enum":["HS256","RS256"]}},"required":["key"]}`)
	jwt.Validate = func(conf []byte) error {
		if !bytes.Contains(conf, []byte(`"secret"`)) {
			return errors.New(`property "secret" is required when using HS based algorithms`)
		}
		return nil
	}
	limit := standIn("limit-count", "", nil)
	limit.Schema = []byte(`{"type":"object","oneOf":[{"required":["count","time_window"]},{"required":["rules"]}]}`)
	split := standIn("traffic-split", `"rules":{"type":"array"}`, nil)
	split.Schema = []byte(`{"type":"object","properties":{"rules":{"type":"array"},"upstream":{"$ref":"upstream.json"}}}`)
	cors := `"allow_origins":{"type":"string"},"max_age":{"type":"integer"},"allow_origins_by_metadata":{},"allow_headers":{},` +
		`"timing_allow_origins":{},"expose_headers":{},"timing_allow_origins_by_regex":{},"allow_credential":{},"allow_origins_by_regex":{},` +
		`"allow_methods":{}`
	logger := standIn("http-logger", `"uri":{"type":"string"}`, nil)
	logger.MetadataSchema, _ = resource.MetadataSchema("http-logger")
	breaker := standIn("api-breaker", "", nil)
	breaker.Schema = []byte(`{"type":"object","required":["break_response_code"],"properties":{"break_response_code":{},` +
		`"break_response_body":{},"break_response_headers":{},"max_breaker_sec":{},"unhealthy":{},"healthy":{}}}`)
	injection := standIn("fault-injection", "", nil)
	injection.Schema = []byte(`{"type":"object","minProperties":1,"properties":{"abort":{},"delay":{}}}`)
	return []phase.Kind{
		standIn("real-ip", "", nil),
		standIn("request-id", `"header_name":{},"include_in_response":{},"algorithm":{},"range_id":{}`, nil),
		injection,
		standIn("cors", cors, nil),
		standIn("ip-restriction", `"whitelist":{},"blacklist":{},"message":{},"response_code":{}`, nil),
		standIn("hmac-auth", "", identity("key_id", `{"type":"object","required":["key_id","secret_key"]}`)),
		standIn("basic-auth", "", identity("username", `{"type":"object","required":["username","password"]}`)),
		standIn("jwt-auth", "", jwt),
		standIn("key-auth", `"anonymous_consumer":{},"header":{},"query":{},"realm":{},"hide_credentials":{}`,
			identity("key", `{"type":"object","properties":{"key":{"type":"string"}},"required":["key"]}`)),
		standIn("proxy-rewrite", "", nil),
		breaker, limit, split,
		standIn("redirect", `"ret_code":{},"uri":{},"regex_uri":{},"http_to_https":{},"encode_uri":{},"append_query_string":{}`, nil),
		standIn("grpc-transcode", "", nil),
		standIn("prometheus", "", nil),
		logger,
	}
}

// standInPlugins implements catalog.Plugins; "batch-requests" is stored and not run.
type standInPlugins struct{}

func (standInPlugins) Names() []string {
	var names []string
	for _, k := range standIns() {
		names = append(names, k.Name)
	}
	return append(names, "batch-requests")
}

func (standInPlugins) Kind(name string) (phase.Kind, bool) {
	for _, k := range standIns() {
		if k.Name == name {
			return k, true
		}
	}
	return phase.Kind{}, false
}

// The methods below answer the questions of resource.Validate and resource.CheckUnused; those about documents run under the lock.

func (m *memory) Range(kind string, f func(key string, value []byte) bool) {
	for key, item := range m.docs {
		if strings.HasPrefix(key, kind+"/") && !f(key, item.Value) {
			return
		}
	}
}

func (m *memory) Exists(key string) bool { _, ok := m.live(key); return ok }

func (m *memory) Document(key string) []byte {
	item, _ := m.live(key)
	return item.Value
}

func (m *memory) Plugin(name string) resource.PluginState {
	if _, ok := (standInPlugins{}).Kind(name); ok {
		return resource.PluginPresent
	}
	if _, ok := resource.KnownPlugin(name); ok {
		return resource.PluginKnown
	}
	return resource.PluginUnknown
}

func (m *memory) IsAuth(name string) bool {
	k, _ := standInPlugins{}.Kind(name)
	return k.Consumer != nil
}

func (m *memory) CheckPlugin(name string, conf any, use resource.Use) error {
	k, _ := standInPlugins{}.Kind(name)
	raw, err := schema.WithMeta(k.Schema)
	if err != nil {
		return err
	}
	check := k.Validate
	switch {
	case use == resource.AsMetadata && k.MetadataSchema == nil:
		return nil
	case use == resource.AsMetadata:
		raw, check = k.MetadataSchema, nil
	case use == resource.InConsumer && k.Consumer != nil:
		raw, check = k.Consumer.Schema, k.Consumer.Validate
	}
	s, err := schema.Compile(name, raw, resource.SchemaRefs()...)
	if err != nil {
		return err
	}
	if err := s.Validate(conf); err != nil || check == nil {
		return err
	}
	text, err := resource.Encode(conf)
	if err != nil {
		return err
	}
	return check(text)
}

func (m *memory) CheckVars(raw any) error {
	_, err := phase.CompilePredicate(raw)
	return err
}

func (m *memory) CredentialOwner(plugin string, conf map[string]any, except string) (attr, owner string) {
	k, _ := standInPlugins{}.Kind(plugin)
	if k.Consumer == nil || conf[k.Consumer.Identity] == nil {
		return "", ""
	}
	for _, key := range slices.Sorted(maps.Keys(m.docs)) {
		item, ok := m.live(key)
		if !ok || key == except || !strings.HasPrefix(key, consumersSegment+"/") {
			continue
		}
		var doc struct {
			Plugins map[string]map[string]any `json:"plugins"`
		}
		if json.Unmarshal(item.Value, &doc) == nil && doc.Plugins[plugin][k.Consumer.Identity] == conf[k.Consumer.Identity] {
			return k.Consumer.Identity, key
		}
	}
	return "", ""
}

func (m *memory) GlobalRuleWith(plugin, except string) string {
	for _, key := range slices.Sorted(maps.Keys(m.docs)) {
		id, ok := strings.CutPrefix(key, "global_rules/")
		if doc := resource.Members(m.docs[key].Value); ok && id != except && doc != nil {
			if plugins, _ := doc["plugins"].(map[string]any); plugins[plugin] != nil {
				return id
			}
		}
	}
	return ""
}

func (m *memory) Lenient(string) bool { return true }

// ApplyAll carries the changes out one after the other and takes all of them back when one is refused.
func (m *memory) ApplyAll(_ context.Context, list []proxy.Change) ([]proxy.Result, error) {
	if m.fail != nil {
		for _, c := range list {
			if err := m.fail(c); err != nil {
				return nil, &proxy.ChangeError{Key: c.Key, Err: err}
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	kept, revision := maps.Clone(m.docs), m.revision
	var results []proxy.Result
	for _, c := range list {
		result, err := m.apply(c)
		if err != nil {
			m.docs, m.revision = kept, revision
			return nil, &proxy.ChangeError{Key: c.Key, Err: err}
		}
		results = append(results, result)
	}
	return results, nil
}

func (m *memory) apply(c proxy.Change) (proxy.Result, error) {
	var old *store.Item
	if item, ok := m.live(c.Key); ok {
		old = &item
	}
	value, err := c.Edit(old)
	if err != nil {
		return proxy.Result{}, err
	}
	kind, id, ok := resource.ParseKey(c.Key)
	internal := strings.HasPrefix(c.Key, proxy.Internal)
	if !ok && !internal {
		return proxy.Result{}, resource.Invalid("no key: " + c.Key)
	}
	if value == nil {
		if !c.Force {
			if refused := resource.CheckUnused(kind, id, m); refused != nil {
				return proxy.Result{}, refused
			}
		}
		m.revision++
		delete(m.docs, c.Key)
		return proxy.Result{Item: store.Item{Key: c.Key, ModRevision: m.revision}, Old: old, Revision: m.revision}, nil
	}
	doc, err := schema.DecodeJSON(value)
	if err != nil {
		return proxy.Result{}, err
	}
	if !internal {
		if refused := resource.Validate(kind, id, doc.(map[string]any), m); refused != nil {
			return proxy.Result{}, refused
		}
	}
	m.revision++
	item := store.Item{Key: c.Key, Value: value, CreateRevision: m.revision, ModRevision: m.revision}
	if old != nil {
		item.CreateRevision = old.CreateRevision
	}
	if c.TTL > 0 {
		item.Expires = m.now().Add(c.TTL)
	}
	m.docs[c.Key] = item
	return proxy.Result{Item: item, Old: old, Revision: m.revision}, nil
}
