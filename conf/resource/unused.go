package resource

import (
	"bytes"
	"strings"

	"headgate/conf/schema"
)

// Docs is the view of the stored documents that CheckUnused searches.
type Docs interface {
	// Range calls f for every document of the kind ("routes") until f returns false. key is the store key ("routes/1") or the id
	// alone. value is read only. Of "consumers" the credentials may be shown as well, under their store keys.
	Range(kind string, f func(key string, value []byte) bool)
}

// holder is a kind of document that may refer to another one, and the word for it in refusals, which is not always Kind.Word.
type holder struct{ segment, word string }

// pluginHolders are the documents with plugins, in the order in which they are searched.
var pluginHolders = [...]holder{
	{segmentRoutes, "route"},
	{segmentServices, "service"},
	{segmentPluginConfigs, "plugin_config"},
	{segmentConsumers, "consumer"},
	{segmentConsumerGroups, "consumer_group"},
	{segmentGlobalRules, "global_rules"},
}

// CheckUnused refuses the deletion of a document that another one refers to (contract section 1.6, "delete in use"). Documents that
// can't be read refer to nothing. That client certificates are looked for is this gateway's own rule.
func CheckUnused(k Kind, id string, docs Docs) *Error {
	inUse := func(text, user string) *Error {
		return Invalid("can not delete this " + k.Word + text + " [" + user + "] is still using it now")
	}
	switch k.Segment {
	case segmentServices:
		if user, ok := findUser(docs, segmentRoutes, "service_id", refersBy("service_id", id)); ok {
			return inUse(" directly, route", user)
		}
	case segmentPluginConfigs:
		if user, ok := findUser(docs, segmentRoutes, "plugin_config_id", refersBy("plugin_config_id", id)); ok {
			return inUse(", route", user)
		}
	case segmentConsumerGroups:
		if user, ok := findUser(docs, segmentConsumers, "group_id", refersBy("group_id", id)); ok {
			return inUse(", consumer", user)
		}
	case segmentProtos:
		for _, by := range pluginHolders {
			if user, ok := findUser(docs, by.segment, "grpc-transcode", transcodesWith(id)); ok {
				return inUse(", "+by.word, user)
			}
		}
	case segmentSSLs:
		for _, by := range [...]holder{{segmentUpstreams, "upstream"}, {segmentRoutes, "route"}, {segmentServices, "service"}} {
			if user, ok := findUser(docs, by.segment, "client_cert_id", showsCertificate(id)); ok {
				return inUse(", "+by.word, user)
			}
		}
	case segmentUpstreams:
		for _, by := range pluginHolders[:2] {
			if user, ok := findUser(docs, by.segment, "upstream_id", refersBy("upstream_id", id)); ok {
				return inUse(", "+by.word, user)
			}
		}
		for _, by := range pluginHolders {
			if user, ok := findUser(docs, by.segment, "upstream_id", splitsTo(id)); ok {
				return inUse(", plugin in "+by.word, user)
			}
		}
	}
	return nil
}

// findUser returns the id of the first document of the segment for which uses holds; such a document names the member.
func findUser(docs Docs, segment, member string, uses func(doc map[string]any) bool) (user string, found bool) {
	docs.Range(segment, func(key string, value []byte) bool {
		// Decoding every document of a large store takes seconds; few of them name the member. An escaped name hides from the search.
		if !bytes.Contains(value, []byte(member)) && !bytes.Contains(value, []byte(`\u`)) {
			return true
		}
		id := strings.TrimPrefix(key, segment+"/")
		if segment == segmentConsumers && strings.Contains(id, "/") { // a credential
			return true
		}
		v, err := schema.DecodeJSON(value)
		if err != nil {
			return true
		}
		doc, _ := v.(map[string]any)
		if found = uses(doc); found {
			user = id
		}
		return !found
	})
	return user, found
}

func refersBy(member, id string) func(doc map[string]any) bool {
	return func(doc map[string]any) bool {
		ref, ok := doc[member]
		return ok && idText(ref) == id
	}
}

// transcodesWith finds a grpc-transcode among the plugins that reads the proto.
func transcodesWith(protoID string) func(doc map[string]any) bool {
	refers := refersBy("proto_id", protoID)
	return func(doc map[string]any) bool { return refers(pluginOf(doc, "grpc-transcode")) }
}

// showsCertificate finds an upstream, the document itself or the one inside it, whose connections show the client certificate.
func showsCertificate(sslID string) func(doc map[string]any) bool {
	refers := refersBy("client_cert_id", sslID)
	return func(doc map[string]any) bool {
		inner, _ := doc["upstream"].(map[string]any)
		for _, upstream := range [...]map[string]any{doc, inner} {
			if tls, _ := upstream["tls"].(map[string]any); refers(tls) {
				return true
			}
		}
		return false
	}
}

// splitsTo finds a traffic-split among the plugins that sends requests to the upstream, be it from the branches of a rule or from a
// rule that is a branch itself.
func splitsTo(upstreamID string) func(doc map[string]any) bool {
	refers := refersBy("upstream_id", upstreamID)
	return func(doc map[string]any) bool {
		rules, _ := pluginOf(doc, "traffic-split")["rules"].([]any)
		for _, rule := range rules {
			obj, _ := rule.(map[string]any)
			if refers(obj) {
				return true
			}
			branches, _ := obj["weighted_upstreams"].([]any)
			for _, branch := range branches {
				if obj, _ := branch.(map[string]any); refers(obj) {
					return true
				}
			}
		}
		return false
	}
}

func pluginOf(doc map[string]any, name string) map[string]any {
	plugins, _ := doc["plugins"].(map[string]any)
	conf, _ := plugins[name].(map[string]any)
	return conf
}
