package resource

import (
	"net/netip"
	"strconv"
	"strings"
)

// Env is what Validate has to ask others.
type Env interface {
	// Exists says whether a document is stored under key ("upstreams/1").
	Exists(key string) bool
	// KnownPlugin says whether the gateway has a plugin of that name.
	KnownPlugin(name string) bool
	// CheckPlugin judges a configuration by the plugin's schema and rules. conf is an object, or a non-empty array, which no plugin
	// takes. The error text carries no prefix.
	CheckPlugin(name string, conf any) error
	// CheckVars judges an expression of the vars language. raw is an array. The error text carries no prefix.
	CheckVars(raw any) error
}

// badConfiguration starts most refusals.
const badConfiguration = "invalid configuration: "

// Validate judges a document as it would be stored: steps 5 and 6 of a write, in the contract's order and words (sections 1.4 and
// 1.6). id is what it will be stored under, "" when that is not decided yet. doc is not changed. A document that passes decodes into
// its typed form without error.
func Validate(k Kind, id string, doc map[string]any, env Env) *Error {
	if k.Segment == segmentRoutes {
		for _, one := range []string{"host", "remote_addr"} {
			if has(doc, one) && has(doc, one+"s") {
				return Invalid("only one of " + one + " or " + one + "s is allowed")
			}
		}
	}
	if err := CheckSchema(k, doc); err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	// The schema lets references to secrets pass as ids, as it does for every string; a key of the store can't be one.
	bodyID, inBody := doc["id"]
	if inBody && !ValidID(idText(bodyID)) || id != "" && !ValidID(id) {
		return Invalid(badConfiguration + `property "id" validation failed: object matches none of the required`)
	}
	var err error
	switch k.Segment {
	case segmentUpstreams:
		return checkUpstream(doc, env)
	case segmentServices:
		if refusal := checkService(doc, env); refusal != nil {
			return refusal
		}
		_, err = serviceFrom(doc)
	case segmentRoutes:
		if refusal := checkRoute(doc, env); refusal != nil {
			return refusal
		}
		_, err = routeFrom(doc)
	}
	if err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	return nil
}

func checkRoute(doc map[string]any, env Env) *Error {
	if err := checkRemoteAddrs(doc); err != nil {
		return err
	}
	if err := checkShared(doc, env); err != nil {
		return err
	}
	if vars, ok := asList(doc["vars"]); ok && has(doc, "vars") {
		if vars == nil {
			vars = []any{}
		}
		if err := env.CheckVars(vars); err != nil {
			return invalidVars(err)
		}
	}
	if has(doc, "filter_func") {
		return Invalid("'filter_func' is not supported: Lua does not run here; match requests with 'vars' instead")
	}
	return checkScript(doc)
}

func checkService(doc map[string]any, env Env) *Error {
	if err := checkShared(doc, env); err != nil {
		return err
	}
	return checkScript(doc)
}

// checkShared judges what routes and services have in common: the inline upstream, the references, the plugins.
func checkShared(doc map[string]any, env Env) *Error {
	if upstream, ok := doc["upstream"].(map[string]any); ok {
		if err := checkUpstream(upstream, env); err != nil {
			return err
		}
	}
	for _, ref := range []struct{ field, segment, word string }{
		{"upstream_id", segmentUpstreams, "upstream"},
		{"service_id", segmentServices, "service"},
		{"plugin_config_id", "plugin_configs", "plugin config"},
	} {
		v, ok := doc[ref.field]
		if !ok {
			continue
		}
		if id := idText(v); !env.Exists(ref.segment + "/" + id) {
			return Invalid("failed to fetch " + ref.word + " info by " + ref.word + " id [" + id + "], response code: 404")
		}
	}
	return checkPlugins(doc["plugins"], env)
}

func checkScript(doc map[string]any) *Error {
	for _, name := range []string{"script", "script_id"} {
		if has(doc, name) {
			return Invalid("'" + name + "' is not supported: Lua does not run here; use 'plugins' instead")
		}
	}
	return nil
}

func invalidVars(err error) *Error {
	return Invalid("failed to validate the 'vars' expression: " + err.Error())
}

// checkPlugins goes by name, so that of several mistakes always the same one is told.
func checkPlugins(plugins any, env Env) *Error {
	byName, _ := plugins.(map[string]any)
	for _, name := range sortedKeys(byName) {
		conf := byName[name]
		obj, isObject := asObject(conf)
		if _, isArray := conf.([]any); !isObject && !isArray {
			text, _ := Encode(conf)
			return Invalid("invalid plugin conf " + string(text) + " for plugin [" + name + "]")
		}
		if !env.KnownPlugin(name) {
			return Invalid("unknown plugin [" + name + "]")
		}
		if isObject {
			conf = obj
		}
		if err := checkPlugin(name, conf, env); err != nil {
			return err
		}
		if !isObject { // a plugin without a schema may have let it pass, but there is no typed form of it
			return Invalid("invalid plugin conf for plugin [" + name + "]: expected an object")
		}
	}
	return nil
}

func checkPlugin(name string, conf any, env Env) *Error {
	obj, _ := conf.(map[string]any)
	meta, _ := obj["_meta"].(map[string]any)
	// What is switched off may be wrong: operators park half-written configurations that way.
	disabled := meta["disable"] == true
	if err := env.CheckPlugin(name, conf); err != nil && !disabled {
		return Invalid("failed to check the configuration of plugin " + name + " err: " + err.Error())
	}
	if filter, ok := meta["filter"]; ok {
		list, ok := asList(filter)
		if !ok {
			list = []any{filter}
		}
		if list == nil {
			list = []any{}
		}
		if err := env.CheckVars(list); err != nil {
			return invalidVars(err)
		}
	}
	if has(meta, "pre_function") && !disabled {
		return Invalid("failed to check the configuration of plugin " + name +
			" err: '_meta.pre_function' is not supported: Lua does not run here; use '_meta.filter' or another plugin instead")
	}
	return nil
}

// checkRemoteAddrs refuses what the schema's patterns let through but no parser takes.
func checkRemoteAddrs(doc map[string]any) *Error {
	const text = " validation failed: object matches none of the required"
	bad := func(v any) bool {
		s, _ := v.(string)
		if strings.Contains(s, "/") {
			_, err := netip.ParsePrefix(s)
			return err != nil
		}
		_, err := netip.ParseAddr(s)
		return err != nil
	}
	if v, ok := doc["remote_addr"]; ok && bad(v) {
		return Invalid(badConfiguration + `property "remote_addr"` + text)
	}
	list, _ := doc["remote_addrs"].([]any)
	for i, v := range list {
		if bad(v) {
			return Invalid(badConfiguration + `property "remote_addrs" validation failed: failed to validate item ` +
				strconv.Itoa(i+1) + ": object matches none of the required")
		}
	}
	return nil
}

func has(doc map[string]any, name string) bool {
	_, ok := doc[name]
	return ok
}
