package resource

import (
	"embed"
	"fmt"
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
	json     map[string][]byte // by Kind.Segment, every reference replaced by what it refers to
	compiled map[string]*schema.Schema
	// Rules for the key of a consistent hash, by hash_on (contract section 3.1).
	hashVar, hashName *schema.Schema
}

// schemas is built on first use and never changes afterwards.
var schemas = sync.OnceValue(func() *catalogue {
	c := &catalogue{json: make(map[string][]byte), compiled: make(map[string]*schema.Schema)}
	for _, k := range Kinds() {
		raw, err := Encode(bundle(loadSchema(k.Word + ".json")))
		if err != nil {
			panic(err)
		}
		c.json[k.Segment] = raw
		c.compiled[k.Segment] = mustCompile(k.Word, raw)
	}
	c.hashVar = mustCompile("hash variable", []byte(`{"type": "string", "pattern": `+
		`"^((uri|server_name|server_addr|request_uri|remote_port|remote_addr|query_string|host|hostname|mqtt_client_id)|arg_[0-9a-zA-z_-]+)$"}`))
	c.hashName = mustCompile("hash name", []byte(`{"type": "string", "pattern": "^[a-zA-Z0-9-_]+$"}`))
	return c
})

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

// SchemaJSON returns the JSON Schema of the kind, self-contained. The caller owns the bytes.
func (k Kind) SchemaJSON() []byte {
	return append([]byte(nil), schemas().json[k.Segment]...)
}

// UpstreamSchemaJSON returns the JSON Schema of upstreams, self-contained. The caller owns the bytes.
func UpstreamSchemaJSON() []byte {
	return Kind{Segment: segmentUpstreams}.SchemaJSON()
}

// SchemaRefs lists the schemas that a plugin's schema may refer to: {"$ref": "upstream.json"} is an inline upstream.
func SchemaRefs() []schema.Ref {
	return []schema.Ref{{Name: upstreamRef, JSON: UpstreamSchemaJSON()}}
}

// CheckSchema judges doc by the JSON Schema of the kind alone. The error text has no prefix (contract section 1.2,
// schema/validate). A nil doc means that there was no body.
func CheckSchema(k Kind, doc any) error {
	return schemas().compiled[k.Segment].Validate(doc)
}
