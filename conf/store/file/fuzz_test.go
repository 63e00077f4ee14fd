package file

import (
	"encoding/json"
	"strings"
	"testing"

	"headgate/conf/resource"
	"headgate/conf/store"
)

// Whatever stands in the file, the documents that come out of it are JSON objects under keys that stores and resources have.
func FuzzParse(f *testing.F) {
	f.Add(false, yamlFile)
	f.Add(true, tomlFile)
	f.Add(false, "consumers:\n- {id: a/credentials/b}\n- {username: a}\nroutes: [{}, {id: 2.5}]\n#END")
	f.Add(true, "routes = [{id = 1, x = [1.0, {}]}]\nprotos = []\n")
	f.Fuzz(func(t *testing.T, toml bool, text string) {
		path := "x.yaml"
		if toml {
			path = "x.toml"
		}
		docs, _, err := parse(path, []byte(text), nil)
		if err != nil {
			if docs != nil || !strings.HasPrefix(err.Error(), path) {
				t.Fatalf("got %d documents with error %q", len(docs), err)
			}
			return
		}
		for key, d := range docs {
			var doc map[string]any
			if err := json.Unmarshal(d.value, &doc); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			if err := store.CheckKey(key); err != nil {
				t.Fatal(err)
			}
			if _, _, ok := resource.ParseKey(key); !ok {
				t.Fatalf("no kind has the key %q", key)
			}
		}
	})
}
