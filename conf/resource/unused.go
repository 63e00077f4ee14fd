package resource

import (
	"bytes"
	"strings"

	"headgate/conf/schema"
)

// Docs is the view of the stored documents that CheckUnused searches.
type Docs interface {
	// Range calls f for every document of the kind ("routes") until f returns false. key is the store key ("routes/1") or the id
	// alone. value is read only.
	Range(kind string, f func(key string, value []byte) bool)
}

// CheckUnused refuses the deletion of a document that another one refers to (contract section 1.6, "delete in use"). Documents that
// can't be read refer to nothing.
func CheckUnused(k Kind, id string, docs Docs) *Error {
	switch k.Segment {
	case segmentServices:
		if user, ok := findUser(docs, segmentRoutes, "service_id", id, nil); ok {
			return Invalid("can not delete this service directly, route [" + user + "] is still using it now")
		}
	case segmentUpstreams:
		for _, by := range []Kind{{segmentRoutes, "route"}, {segmentServices, "service"}} {
			if user, ok := findUser(docs, by.Segment, "upstream_id", id, nil); ok {
				return Invalid("can not delete this upstream, " + by.Word + " [" + user + "] is still using it now")
			}
		}
		for _, by := range []Kind{
			{segmentRoutes, "route"},
			{segmentServices, "service"},
			{"plugin_configs", "plugin_config"},
			{"consumers", "consumer"},
			{"consumer_groups", "consumer_group"},
			{"global_rules", "global_rules"},
		} {
			if user, ok := findUser(docs, by.Segment, "upstream_id", id, splitUses); ok {
				return Invalid("can not delete this upstream, plugin in " + by.Word + " [" + user + "] is still using it now")
			}
		}
	}
	return nil
}

// findUser returns the id of the first document of the segment whose field is id, or for which uses holds when it is given.
func findUser(docs Docs, segment, field, id string, uses func(doc map[string]any, id string) bool) (user string, found bool) {
	docs.Range(segment, func(key string, value []byte) bool {
		// Decoding every document of a large store takes seconds; few of them name the field. An escaped name hides from the search.
		if !bytes.Contains(value, []byte(field)) && !bytes.Contains(value, []byte(`\u`)) {
			return true
		}
		v, err := schema.DecodeJSON(value)
		if err != nil {
			return true
		}
		doc, _ := v.(map[string]any)
		if uses != nil {
			found = uses(doc, id)
		} else if ref, ok := doc[field]; ok {
			found = idText(ref) == id
		}
		if found {
			user = strings.TrimPrefix(key, segment+"/")
		}
		return !found
	})
	return user, found
}

// splitUses says whether a traffic-split among the plugins of doc sends requests to the upstream, be it from the branches of a rule or
// from a rule that is a branch itself.
func splitUses(doc map[string]any, upstreamID string) bool {
	plugins, _ := doc["plugins"].(map[string]any)
	split, _ := plugins["traffic-split"].(map[string]any)
	rules, _ := split["rules"].([]any)
	for _, rule := range rules {
		obj, _ := rule.(map[string]any)
		branches, _ := obj["weighted_upstreams"].([]any)
		for _, branch := range append([]any{rule}, branches...) {
			obj, _ := branch.(map[string]any)
			if ref, ok := obj["upstream_id"]; ok && idText(ref) == upstreamID {
				return true
			}
		}
	}
	return false
}
