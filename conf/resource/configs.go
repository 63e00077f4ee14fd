package resource

import "strings"

// ConfigError is one mistake of a whole configuration document (contract section 1.8).
type ConfigError struct {
	ResourceType string `json:"resource_type"`         // the key of the document: "routes"
	ResourceID   string `json:"resource_id,omitempty"` // empty when the item has none
	Index        int    `json:"index"`                 // place in the array, from 0
	Error        string `json:"error"`
}

// configKeys are the parts of a configuration document, what is referred to before what refers.
var configKeys = [...]string{segmentSecrets, segmentPluginMetadata, segmentProtos, segmentSSLs, segmentUpstreams, segmentServices,
	segmentPluginConfigs, segmentGlobalRules, segmentConsumerGroups, segmentConsumers, segmentRoutes, segmentStreamRoutes}

// ValidateConfigs judges a whole configuration document: an array of documents under each key of contract section 1.8. References
// between documents are not followed, and nothing is compared with what is stored. Keys that the contract does not know are passed
// over. doc is not changed; at most one mistake is told of each item, and the parts that others refer to come first.
func ValidateConfigs(doc map[string]any, env Env) []ConfigError {
	var all []ConfigError
	alone := withoutReferences{env}
	for _, key := range configKeys {
		v, ok := doc[key]
		if !ok {
			continue
		}
		items, ok := asList(v)
		if !ok {
			all = append(all, ConfigError{ResourceType: key, Error: "expected an array"})
			continue
		}
		seen := make(map[string]bool, len(items))
		for i, item := range items {
			id, word, refusal := checkConfig(key, item, alone)
			if refusal == nil && id != "" && seen[id] {
				refusal = Invalid("found duplicate " + word + " " + id + " in " + key)
			}
			if refusal != nil {
				all = append(all, ConfigError{ResourceType: key, ResourceID: id, Index: i, Error: refusal.Msg})
			}
			if id != "" {
				seen[id] = true
			}
		}
	}
	return all
}

// checkConfig judges one item. word says what its id is called.
func checkConfig(key string, item any, env Env) (id, word string, refusal *Error) {
	given, ok := asObject(item)
	if !ok {
		_, refusal = CheckBody(verbPut, item, true)
		return "", "id", refusal
	}
	doc := make(map[string]any, len(given))
	for name, v := range given {
		if name != "modifiedIndex" { // the document's, not the item's
			doc[name] = v
		}
	}
	word = "id"
	if v, ok := doc["id"]; ok {
		id = idText(v)
	}
	if key == segmentStreamRoutes {
		if err := CheckStreamRouteSchema(doc); err != nil {
			refusal = Invalid(badConfiguration + err.Error())
		}
		return id, word, refusal
	}
	k, _ := KindOf(key)
	if key == segmentConsumers {
		if strings.Contains(id, "/"+segmentCredentials+"/") {
			k, _ = KindOf(segmentCredentials)
			return id, "credential id", Validate(k, id, doc, env)
		}
		id, _ = doc["username"].(string)
		word = "username"
	}
	return id, word, Validate(k, id, doc, env)
}

// withoutReferences answers as if whatever is referred to were there, and nothing else.
type withoutReferences struct{ Env }

func (withoutReferences) Exists(string) bool { return true }

func (withoutReferences) Document(string) []byte { return nil }

func (withoutReferences) CredentialOwner(string, map[string]any, string) (attr, owner string) {
	return "", ""
}

func (withoutReferences) GlobalRuleWith(string, string) string { return "" }
