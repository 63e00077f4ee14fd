// Package catalog tells clients what documents and plugins look like: the JSON Schemas and the facts about plugins that both the
// Admin API and the control API show (contract sections 1.2 and 1.9).
package catalog

import (
	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
)

// Plugins is what the gateway knows about its plugins.
type Plugins interface {
	// Names lists the plugins that configurations may name, highest priority first. A name for which Kind returns false is a plugin whose
	// configurations are stored and not run.
	Names() []string
	// Kind returns the declaration of a plugin.
	Kind(name string) (phase.Kind, bool)
}

// version of every plugin; the contract has no other.
const version = "0.1"

// anything is the schema of a plugin whose configurations nobody reads.
func anything() map[string]any { return map[string]any{"type": "object"} }

// Has says whether p lists name.
func Has(p Plugins, name string) bool {
	if p == nil {
		return false
	}
	if _, ok := p.Kind(name); ok {
		return true
	}
	for _, listed := range p.Names() {
		if listed == name {
			return true
		}
	}
	return false
}

// Place says where a plugin's configuration stands.
type Place uint8

const (
	// OfRoute: in a route, or wherever routes take plugins from; with _meta.
	OfRoute Place = iota
	// OfConsumer: in a consumer or a credential.
	OfConsumer
	// OfMetadata: the plugin_metadata document.
	OfMetadata
)

// PluginSchema returns the schema of the plugin's configuration in a place; ok is false when there is none.
func PluginSchema(p Plugins, name string, place Place) (doc any, ok bool) {
	k, present := p.Kind(name)
	switch {
	case !present && place == OfRoute:
		return anything(), true
	case !present:
		return nil, false
	case place == OfMetadata:
		return decode(k.MetadataSchema)
	case place == OfConsumer && k.Consumer == nil:
		return nil, false
	case place == OfConsumer:
		return decode(k.Consumer.Schema)
	}
	raw, err := schema.WithMeta(k.Schema)
	if err != nil { // the compiler has taken this schema
		return nil, false
	}
	return decode(raw)
}

// Facts describes every plugin by name.
func Facts(p Plugins) map[string]any {
	if p == nil {
		return map[string]any{}
	}
	names := p.Names()
	all := make(map[string]any, len(names))
	for _, name := range names {
		facts := map[string]any{"version": version}
		if doc, ok := PluginSchema(p, name, OfRoute); ok {
			facts["schema"] = doc
		}
		if doc, ok := PluginSchema(p, name, OfConsumer); ok {
			facts["consumer_schema"], facts["type"] = doc, "auth"
		}
		if k, ok := p.Kind(name); ok {
			facts["priority"] = k.Priority
			if doc, ok := PluginSchema(p, name, OfMetadata); ok {
				facts["metadata_schema"] = doc
			}
		} else if priority, ok := resource.KnownPlugin(name); ok {
			facts["priority"] = priority
		}
		all[name] = facts
	}
	return all
}

// Main returns the schemas of documents by name, as the control API shows them.
func Main() map[string]any {
	all := make(map[string]any)
	for _, name := range resource.SchemaNames() {
		if doc, ok := Document(name); ok {
			all[name] = doc
		}
	}
	return all
}

// Document returns one of the schemas of documents and of parts of them: "route", "consumer_group", "id_schema".
func Document(name string) (doc any, ok bool) {
	raw, ok := resource.SchemaFor(name)
	if !ok {
		return nil, false
	}
	return decode(raw)
}

// Metadata returns a plugin_metadata document as the plugin reads it: members that it leaves out have the defaults of the schema.
func Metadata(p Plugins, name string, doc map[string]any) map[string]any {
	var about any
	var ok bool
	if p != nil {
		about, ok = PluginSchema(p, name, OfMetadata)
	}
	if !ok {
		raw, _ := resource.MetadataSchema(name)
		about, _ = decode(raw)
	}
	of, _ := about.(map[string]any)
	members, _ := of["properties"].(map[string]any)
	for member, about := range members {
		about, _ := about.(map[string]any)
		if def, has := about["default"]; has {
			if _, said := doc[member]; !said {
				doc[member] = def
			}
		}
	}
	return doc
}

// decode makes a schema stand for itself: what it refers to takes the place of the reference.
func decode(raw []byte) (any, bool) {
	if len(raw) == 0 {
		return nil, false
	}
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		return nil, false
	}
	return resolve(doc), true
}

func resolve(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := v["$ref"].(string); ok {
			for _, ref := range resource.SchemaRefs() {
				if ref.Name == name {
					target, _ := decode(ref.JSON)
					return target
				}
			}
			return v
		}
		for name, sub := range v {
			v[name] = resolve(sub)
		}
	case []any:
		for i, sub := range v {
			v[i] = resolve(sub)
		}
	}
	return v
}
