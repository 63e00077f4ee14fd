package resource

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"headgate/conf/schema"
)

var placeholder = regexp.MustCompile(`\{\{([A-Za-z0-9_]+)\}\}`)

// fill replaces placeholders by values of the right form.
func (w *world) fill(s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(p string) string {
		name := strings.Trim(p, "{}")
		switch {
		case name == "id":
			return generatedID
		case w.pairs[name] != "":
			return strings.ReplaceAll(w.pairs[name], "\n", `\n`)
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
	pairs    map[string]string // certificates and keys by placeholder
	expected string
}

// identities are the members by which authentication plugins tell consumers.
var identities = map[string]string{"key-auth": "key", "basic-auth": "username", "jwt-auth": "key", "hmac-auth": "key_id"}

func (w *world) Exists(key string) bool { _, ok := w.docs[key]; return ok }

func (w *world) Document(key string) []byte { return w.docs[key] }

func (w *world) Plugin(name string) PluginState {
	if _, known := KnownPlugin(name); !known {
		return PluginUnknown
	}
	if _, logger := MetadataSchema(name); logger {
		return PluginInert
	}
	return PluginPresent
}

func (w *world) IsAuth(name string) bool { return identities[name] != "" }

func (w *world) Lenient(name string) bool { return name == "ssl_key_mismatch" }

func (w *world) CheckPlugin(name string, _ any, use Use) error {
	prefix := "failed to check the configuration of plugin " + name + " err: "
	if use == AsMetadata {
		prefix = "invalid configuration: "
	}
	if _, text, ok := strings.Cut(w.expected, prefix); ok {
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

// others calls f with the plugins of every document below the prefix but one, by key.
func (w *world) others(prefix, except string, f func(key string, plugins map[string]any)) {
	for key, raw := range w.docs {
		v, err := schema.DecodeJSON(raw)
		if doc, ok := v.(map[string]any); ok && err == nil && strings.HasPrefix(key, prefix) && key != except {
			plugins, _ := doc["plugins"].(map[string]any)
			f(key, plugins)
		}
	}
}

func (w *world) CredentialOwner(plugin string, conf map[string]any, except string) (attr, owner string) {
	attr = identities[plugin]
	w.others("consumers/", except, func(key string, plugins map[string]any) {
		if other, _ := plugins[plugin].(map[string]any); other != nil && other[attr] == conf[attr] {
			owner = key
		}
	})
	return attr, owner
}

func (w *world) GlobalRuleWith(plugin, except string) (id string) {
	w.others("global_rules/", "global_rules/"+except, func(key string, plugins map[string]any) {
		if _, ok := plugins[plugin]; ok {
			id = strings.TrimPrefix(key, "global_rules/")
		}
	})
	return id
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
	if !ok || strings.Contains(query, "ttl=") || recorded == 401 || recorded == 0 || len(body) > 1572864 {
		return 0, "", false
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	for i := range parts {
		if parts[i], ok = unescape(parts[i]); !ok {
			return 0, "", false
		}
	}
	switch {
	case rest == "configs/validate":
		return w.validateConfigs(body)
	case strings.HasPrefix(rest, "schema/validate/") && method == "POST" && len(parts) == 3:
		return w.validateSchema(parts[2], body)
	}
	k, ok := KindOf(parts[0])
	if !ok || k.Parent != "" {
		return 0, "", false
	}
	id, sub := resourcePath(&k, parts[1:])
	var refusal *Error
	switch {
	case method == "POST" && k.NoPost, method == "PATCH" && k.NoPatch:
		refusal = &Error{Status: 405, Msg: "not supported `" + method + "` method for " + k.Word}
	case method == "PUT", method == "POST":
		status, refusal = w.write(k, method, id, body)
	case method == "PATCH":
		status, refusal = w.patch(k, id, sub, body)
	case method == "DELETE":
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

// resourcePath takes what follows the kind's segment apart: the id, as CheckID wants it, and the sub-path of a PATCH.
func resourcePath(k *Kind, parts []string) (id string, sub []string) {
	width := 1
	switch {
	case k.Segment == segmentSecrets:
		width = 2
	case k.Segment == segmentConsumers && len(parts) > 1 && parts[1] == segmentCredentials:
		*k, _ = KindOf(segmentCredentials)
		width = 3
	}
	width = min(width, len(parts))
	return strings.Join(parts[:width], "/"), parts[width:]
}

func (w *world) validateConfigs(body []byte) (int, string, bool) {
	doc, err := schema.DecodeJSON(body)
	if err != nil {
		return 400, err.Error(), true
	}
	found := ValidateConfigs(doc.(map[string]any), w)
	if len(found) == 0 {
		return 200, "", true
	}
	raw, _ := Encode(found)
	return 400, string(raw), true
}

func (w *world) validateSchema(segment string, body []byte) (int, string, bool) {
	k, ok := KindOf(segment)
	if !ok {
		return 0, "", false
	}
	var doc any
	if len(body) > 0 {
		var err error
		if doc, err = schema.DecodeJSON(body); err != nil {
			return 400, err.Error(), true
		}
	}
	if err := CheckSchema(k, doc); err != nil {
		return 400, err.Error(), true
	}
	return 200, "", true
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
		err = decodeAs(k, raw)
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
	for key := range w.docs {
		if key == k.Key(id) || k.Segment == segmentConsumers && strings.HasPrefix(key, k.Key(id)+"/") {
			delete(w.docs, key)
		}
	}
	return 200, nil
}

// decodeAs asks for the typed form.
func decodeAs(k Kind, raw []byte) error {
	var err error
	switch k.Segment {
	case segmentRoutes:
		_, err = DecodeRoute(raw)
	case segmentServices:
		_, err = DecodeService(raw)
	case segmentUpstreams:
		_, err = DecodeUpstream(raw)
	case segmentConsumers:
		_, err = DecodeConsumer(raw)
	case segmentCredentials:
		_, err = DecodeCredential(raw)
	case segmentConsumerGroups, segmentPluginConfigs, segmentGlobalRules:
		_, err = DecodePluginSet(raw)
	case segmentSSLs:
		_, err = DecodeSSL(raw)
	case segmentProtos:
		_, err = DecodeProto(raw)
	}
	return err
}
