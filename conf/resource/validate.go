package resource

import (
	"net/netip"
	"strconv"
	"strings"
)

// badConfiguration starts most refusals.
const badConfiguration = "invalid configuration: "

// badID refuses an id in the words of the schema that ids have.
const badID = badConfiguration + `property "id" validation failed: object matches none of the required`

// Validate judges a document as it would be stored: steps 5 to 7 of a write, in the contract's order and words (sections 1.4 and
// 1.6). id is what it will be stored under, as CheckID returned it, "" when that is not decided yet. doc is not changed. A document
// that passes decodes into its typed form without error.
func Validate(k Kind, id string, doc map[string]any, env Env) *Error {
	switch k.Segment {
	case segmentRoutes:
		if err := checkOnlyOne(doc); err != nil {
			return err
		}
	case segmentSecrets:
		return checkSecret(id, doc)
	case segmentPluginMetadata:
		return checkMetadata(id, doc, env)
	}
	if err := CheckSchema(k, doc); err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	if err := checkIDs(k, id, doc); err != nil {
		return err
	}
	return checkContent(k, id, doc, env)
}

func checkOnlyOne(doc map[string]any) *Error {
	for _, one := range [...]string{"host", "remote_addr"} {
		if has(doc, one) && has(doc, one+"s") {
			return Invalid("only one of " + one + " or " + one + "s is allowed")
		}
	}
	return nil
}

// checkIDs judges what the schema lets pass: references to secrets, which are good for every string but not for a key of the store, and
// ids that are in the path alone.
func checkIDs(k Kind, id string, doc map[string]any) *Error {
	bodyID, inBody := doc["id"]
	if inBody && k.Segment == segmentCredentials {
		text := idText(bodyID)
		bodyID = text[strings.LastIndexByte(text, '/')+1:]
	}
	if inBody && !ValidID(idText(bodyID)) || id != "" && k.Segment != segmentConsumers && !k.ValidID(id) {
		return Invalid(badID)
	}
	return nil
}

// checkContent judges what no schema can express. The document satisfies its schema.
func checkContent(k Kind, id string, doc map[string]any, env Env) *Error {
	var err error
	var refusal *Error
	switch k.Segment {
	case segmentUpstreams:
		return checkUpstream(doc, env)
	case segmentServices:
		if refusal = checkService(doc, env); refusal == nil {
			_, err = serviceFrom(doc)
		}
	case segmentRoutes:
		if refusal = checkRoute(doc, env); refusal == nil {
			_, err = routeFrom(fields{doc: doc, judging: true})
		}
	case segmentConsumers:
		if refusal = checkConsumer(id, doc, env); refusal == nil {
			_, err = consumerFrom(doc)
		}
	case segmentCredentials:
		if refusal = checkCredential(k, id, doc, env); refusal == nil {
			_, err = credentialFrom(doc)
		}
	case segmentGlobalRules, segmentConsumerGroups, segmentPluginConfigs:
		if refusal = checkPluginSet(k, id, doc, env); refusal == nil {
			_, err = pluginSetFrom(doc)
		}
	case segmentSSLs:
		if refusal = checkSSL(doc, env); refusal == nil {
			_, err = sslFrom(doc)
		}
	case segmentProtos:
		if refusal = checkProto(doc); refusal == nil {
			_, err = protoFrom(doc)
		}
	}
	if err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	return refusal
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
		{"plugin_config_id", segmentPluginConfigs, "plugin config"},
	} {
		v, ok := doc[ref.field]
		if !ok {
			continue
		}
		if id := idText(v); !env.Exists(ref.segment + "/" + id) {
			return noSuch(ref.word, id)
		}
	}
	return checkPlugins(doc["plugins"], env)
}

func noSuch(word, id string) *Error {
	return Invalid("failed to fetch " + word + " info by " + word + " id [" + id + "], response code: 404")
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

// checkPlugins judges the plugins of every document but consumers and credentials.
func checkPlugins(plugins any, env Env) *Error { return checkPluginsFor(plugins, env, InRoute) }

// checkPluginsFor goes by name, so that of several mistakes always the same one is told. In consumers, plugins that are not about
// authentication are judged as they are in routes.
func checkPluginsFor(plugins any, env Env, use Use) *Error {
	byName, _ := plugins.(map[string]any)
	for _, name := range sortedKeys(byName) {
		conf := byName[name]
		obj, isObject := asObject(conf)
		if _, isArray := conf.([]any); !isObject && !isArray {
			text, _ := Encode(conf)
			return Invalid("invalid plugin conf " + string(text) + " for plugin [" + name + "]")
		}
		if isObject {
			conf = obj
		}
		switch env.Plugin(name) {
		case PluginPresent:
			as := use
			if use == InConsumer && !env.IsAuth(name) {
				as = InRoute
			}
			if err := checkPlugin(name, conf, env, as); err != nil {
				return err
			}
		case PluginInert:
		case PluginKnown:
			return Invalid("plugin " + name + " is known but not implemented" + whyNot(name))
		default:
			return Invalid("unknown plugin [" + name + "]")
		}
		if !isObject { // a plugin without a schema may have let it pass, but there is no typed form of it
			return Invalid("invalid plugin conf for plugin [" + name + "]: expected an object")
		}
	}
	return nil
}

func whyNot(plugin string) string {
	if strings.HasPrefix(plugin, "serverless-") || plugin == "exit-transformer" { // functions in Lua are all that they have
		return ": Lua does not run here"
	}
	return ""
}

func checkPlugin(name string, conf any, env Env, use Use) *Error {
	obj, _ := conf.(map[string]any)
	meta, _ := obj["_meta"].(map[string]any)
	// What is switched off may be wrong: operators park half-written configurations that way.
	disabled := meta["disable"] == true
	if err := env.CheckPlugin(name, conf, use); err != nil && !disabled {
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
