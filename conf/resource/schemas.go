package resource

import (
	"bytes"
	"embed"
	"fmt"
	"maps"
	"strings"
	"sync"

	"headgate/conf/schema"
)

//go:embed schemas/*.json
var schemaFiles embed.FS

// upstreamRef is the name by which other schemas refer to the upstream schema: {"$ref": "upstream.json"}.
const upstreamRef = "upstream.json"

// catalogue holds the schemas of all kinds. The files are part of the program: an error in one of them is a panic.
type catalogue struct {
	json      map[string][]byte // by the names of SchemaFor, every reference replaced by what it refers to
	compiled  map[string]*schema.Schema
	bySegment map[string]*schema.Schema // by Kind.Segment
	managers  map[string]*schema.Schema // of secrets, by the name of the manager
	// The plugin_metadata of loggers, by plugin name.
	metadata      map[string][]byte
	metadataRules map[string]*schema.Schema
	// Rules for the key of a consistent hash, by hash_on (contract section 3.1).
	hashVar, hashName *schema.Schema
}

// documentSchemas are the names under which the schemas of documents are served, which are the names of their files.
var documentSchemas = [...]string{"consumer", "consumer_group", "credential", "global_rule", "plugin_config", "proto", "route", "service",
	"ssl", "stream_route", "upstream"}

// batchLoggers are the plugins whose plugin_metadata is that of the batch loggers (contract section 4.3).
var batchLoggers = [...]string{"clickhouse-logger", "elasticsearch-logger", "google-cloud-logging", "http-logger", "kafka-logger", "lago",
	"loggly", "loki-logger", "rocketmq-logger", "skywalking-logger", "sls-logger", "splunk-hec-logging", "syslog", "tcp-logger",
	"tencent-cloud-cls", "udp-logger"}

// schemas is built on first use and never changes afterwards.
var schemas = sync.OnceValue(func() *catalogue {
	c := &catalogue{
		json: make(map[string][]byte), compiled: make(map[string]*schema.Schema), bySegment: make(map[string]*schema.Schema),
		managers: make(map[string]*schema.Schema), metadata: make(map[string][]byte), metadataRules: make(map[string]*schema.Schema),
	}
	add := func(name string, doc any) {
		raw, err := Encode(bundle(doc))
		if err != nil {
			panic(err)
		}
		c.json[name] = raw
		c.compiled[name] = mustCompile(name, raw)
	}
	for _, name := range documentSchemas {
		add(name, loadSchema(name+".json"))
	}
	for name, part := range map[string]string{
		"plugins": "plugins", "id_schema": "id", "host_def": "host",
		"upstream_hash_vars_schema": "hash_variable", "upstream_hash_header_schema": "hash_name",
		"upstream_hash_vars_combinations_schema": "hash_template",
	} {
		add(name, map[string]any{"$ref": "common.json#/" + part})
	}
	c.hashVar, c.hashName = c.compiled["upstream_hash_vars_schema"], c.compiled["upstream_hash_header_schema"]
	for _, k := range Kinds() {
		c.bySegment[k.Segment] = c.compiled[strings.ReplaceAll(k.Word, " ", "_")]
	}
	anything := mustCompile("object", []byte(`{"type": "object"}`))
	c.bySegment[segmentSecrets], c.bySegment[segmentPluginMetadata] = anything, anything
	c.bySegment[segmentStreamRoutes] = c.compiled["stream_route"]
	for _, manager := range secretManagers {
		raw, err := Encode(bundle(loadSchema("secret_" + manager + ".json")))
		if err != nil {
			panic(err)
		}
		c.managers[manager] = mustCompile("secret "+manager, raw)
	}
	c.loadMetadata()
	return c
})

func (c *catalogue) loadMetadata() {
	byName := loadSchema("metadata.json").(map[string]any)
	add := func(part string, plugins ...string) {
		raw, err := Encode(byName[part])
		if err != nil {
			panic(err)
		}
		rule := mustCompile(part, raw)
		for _, name := range plugins {
			c.metadata[name], c.metadataRules[name] = raw, rule
		}
	}
	add("batch_logger", batchLoggers[:]...)
	add("file_logger", "file-logger")
}

func mustCompile(name string, raw []byte) *schema.Schema {
	s, err := schema.Compile(name, raw)
	if err != nil {
		panic(err)
	}
	return s
}

func loadSchema(file string) any {
	raw, err := schemaFiles.ReadFile("schemas/" + file)
	if err != nil {
		panic(err)
	}
	doc, err := schema.DecodeJSON(raw)
	if err != nil {
		panic(fmt.Errorf("%s: %w", file, err))
	}
	return doc
}

// bundle replaces every {"$ref": "file.json"} and {"$ref": "file.json#/name"}, so that a schema that is shown stands for itself.
func bundle(doc any) any {
	switch doc := doc.(type) {
	case map[string]any:
		if ref, ok := doc["$ref"].(string); ok {
			file, name, found := strings.Cut(ref, "#/")
			target := loadSchema(file)
			if found {
				if target, ok = target.(map[string]any)[name]; !ok {
					panic("schema reference to nothing: " + ref)
				}
			}
			return bundle(target)
		}
		for name, sub := range doc {
			doc[name] = bundle(sub)
		}
	case []any:
		for i, sub := range doc {
			doc[i] = bundle(sub)
		}
	}
	return doc
}

// SchemaFor returns the JSON Schema that the Admin API serves under name ("route", "consumer_group", "plugins", "id_schema"; contract
// section 1.2), self-contained. The caller owns the bytes.
func SchemaFor(name string) (raw []byte, ok bool) {
	raw, ok = schemas().json[name]
	return bytes.Clone(raw), ok
}

// SchemaNames lists what the control API shows under "main" (contract section 1.9), sorted; SchemaFor has them all, and more.
func SchemaNames() []string {
	return []string{"consumer", "consumer_group", "global_rule", "plugin_config", "plugins", "proto", "route", "service", "ssl",
		"stream_route", "upstream", "upstream_hash_header_schema", "upstream_hash_vars_schema"}
}

// MetadataSchema returns the JSON Schema of the plugin_metadata document of a logger, whether this gateway has that plugin or not. The
// caller owns the bytes.
func MetadataSchema(plugin string) (raw []byte, ok bool) {
	raw, ok = schemas().metadata[plugin]
	return bytes.Clone(raw), ok
}

// UpstreamSchemaJSON returns the JSON Schema of upstreams, self-contained. The caller owns the bytes.
func UpstreamSchemaJSON() []byte {
	raw, _ := SchemaFor("upstream")
	return raw
}

// SchemaJSON returns the JSON Schema of the kind, self-contained; nil for plugin_metadata and secrets, whose schema depends on the
// plugin and on the manager. The caller owns the bytes.
func (k Kind) SchemaJSON() []byte {
	raw, _ := SchemaFor(strings.ReplaceAll(k.Word, " ", "_"))
	return raw
}

// SchemaRefs lists the schemas that a plugin's schema may refer to: {"$ref": "upstream.json"} is an inline upstream.
func SchemaRefs() []schema.Ref {
	return []schema.Ref{{Name: upstreamRef, JSON: UpstreamSchemaJSON()}}
}

// CheckSchema judges doc by the JSON Schema of the kind alone; of plugin_metadata and secrets that is "an object". The error text has
// no prefix (contract section 1.2, schema/validate). A nil doc means that there was no body.
//
// Of two mistakes the one in the property that comes first by name is told, but for certificates: there a bad key is told ahead of a bad
// certificate, as the contract's gateway does.
func CheckSchema(k Kind, doc any) error {
	rule := schemas().bySegment[k.Segment]
	err := rule.Validate(doc)
	if k.Segment != segmentSSLs || err == nil || !strings.HasPrefix(err.Error(), `property "cert" validation failed: `) {
		return err
	}
	without := maps.Clone(doc.(map[string]any)) // only an object has properties
	delete(without, "cert")
	if other := rule.Validate(without); other != nil && strings.HasPrefix(other.Error(), `property "key" validation failed: `) {
		return other
	}
	return err
}

// CheckStreamRouteSchema does for stream routes, which are not stored, what CheckSchema does for other documents.
func CheckStreamRouteSchema(doc any) error {
	return schemas().bySegment[segmentStreamRoutes].Validate(doc)
}
