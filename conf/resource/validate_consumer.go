package resource

import (
	"slices"
	"strings"
)

// checkConsumer judges a consumer that satisfies its schema. id is the name in the path, when there is one.
func checkConsumer(id string, doc map[string]any, env Env) *Error {
	name, _ := doc["username"].(string)
	if !validUsername(name) { // a reference, which the schema lets pass
		return Invalid(badConfiguration + `property "username" validation failed: expected a name, not a reference`)
	}
	if id != "" && id != name {
		return Invalid("wrong username")
	}
	if err := checkConsumerPlugins(doc["plugins"], env); err != nil {
		return err
	}
	if err := checkIdentities(segmentConsumers+"/"+name, doc["plugins"], env); err != nil {
		return err
	}
	return checkGroup(doc, env)
}

func checkGroup(doc map[string]any, env Env) *Error {
	if group, ok := doc["group_id"]; ok {
		if group := idText(group); !env.Exists(segmentConsumerGroups + "/" + group) {
			return noSuch("consumer group", group)
		}
	}
	return nil
}

// checkCredential judges a credential that satisfies its schema. id names the consumer too.
func checkCredential(k Kind, id string, doc map[string]any, env Env) *Error {
	if err := checkConsumerPlugins(doc["plugins"], env); err != nil {
		return err
	}
	plugins, _ := doc["plugins"].(map[string]any)
	for name := range plugins { // one at most
		if env.Plugin(name) == PluginPresent && !env.IsAuth(name) {
			return Invalid("only supports auth type plugins in consumer credential")
		}
	}
	if err := checkIdentities(k.Key(id), plugins, env); err != nil {
		return err
	}
	if user, _, ok := strings.Cut(id, "/"); ok && !env.Exists(segmentConsumers+"/"+user) {
		return &Error{Status: 404, Msg: "consumer not found"}
	}
	return nil
}

func checkConsumerPlugins(plugins any, env Env) *Error {
	if err := checkPluginsFor(plugins, env, InConsumer); err != nil {
		return Invalid("invalid plugins configuration: " + err.Msg)
	}
	return nil
}

// checkIdentities refuses what another consumer or credential already shows: a request could not tell the two apart. What is switched
// off is looked at as well, since switching it on is no change of identity.
func checkIdentities(key string, plugins any, env Env) *Error {
	byName, _ := plugins.(map[string]any)
	for _, name := range sortedKeys(byName) {
		conf, ok := byName[name].(map[string]any)
		if !ok || env.Plugin(name) != PluginPresent || !env.IsAuth(name) {
			continue
		}
		attr, owner := env.CredentialOwner(name, conf, key)
		if owner == "" {
			continue
		}
		user := strings.TrimPrefix(owner, segmentConsumers+"/")
		with := "consumer: " + user
		if consumer, credential, ok := strings.Cut(user, "/"+segmentCredentials+"/"); ok {
			with = "credential: " + credential + " of consumer: " + consumer
		}
		return Invalid("duplicate " + attr + " of plugin " + name + " found with " + with)
	}
	return nil
}

func checkPluginSet(k Kind, id string, doc map[string]any, env Env) *Error {
	if err := checkPlugins(doc["plugins"], env); err != nil || k.Segment != segmentGlobalRules {
		return err
	}
	plugins, _ := doc["plugins"].(map[string]any)
	for _, name := range sortedKeys(plugins) {
		if other := env.GlobalRuleWith(name, id); other != "" {
			return Invalid("plugin '" + name + "' already exists in global rule with id '" + other + "'")
		}
	}
	return nil
}

// checkMetadata judges the plugin_metadata document of the plugin id. Metadata of a plugin that is known only is stored, so that a
// configuration that was made for another gateway can be loaded; nothing reads it.
func checkMetadata(id string, doc map[string]any, env Env) *Error {
	if id == "" {
		return Invalid("missing plugin name")
	}
	state := env.Plugin(id)
	if state == PluginUnknown || !ValidID(id) {
		return Invalid("invalid plugin name")
	}
	conf := make(map[string]any, len(doc))
	for name, v := range doc {
		if name != "id" {
			conf[name] = v
		}
	}
	var err error
	if state == PluginPresent {
		err = env.CheckPlugin(id, conf, AsMetadata)
	} else if rule := schemas().metadataRules[id]; rule != nil {
		err = rule.Validate(conf)
	}
	if err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	return nil
}

// checkSecret judges the access to a secret manager; id is "vault/1".
func checkSecret(id string, doc map[string]any) *Error {
	manager, name, _ := strings.Cut(id, "/")
	if manager == "" {
		return Invalid("missing secret type")
	}
	if !slices.Contains(secretManagers[:], manager) {
		return Invalid("invalid secret manager: " + manager)
	}
	if err := schemas().managers[manager].Validate(doc); err != nil {
		return Invalid(badConfiguration + err.Error())
	}
	if !ValidID(name) {
		return Invalid(badID)
	}
	return nil
}

// validUsername says whether a consumer may be called name (contract section 1.7).
func validUsername(name string) bool {
	if len(name) == 0 || len(name) > 256 {
		return false
	}
	return strings.IndexFunc(name, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
	}) < 0
}
