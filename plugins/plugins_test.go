package plugins

import (
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

func TestListIsSorted(t *testing.T) {
	list := List()
	if len(list) == 0 {
		t.Fatal("no plugins")
	}
	seen := map[string]bool{}
	for i, k := range list {
		if i > 0 && k.Priority >= list[i-1].Priority {
			t.Errorf("%s (%d) stands behind %s (%d)", k.Name, k.Priority, list[i-1].Name, list[i-1].Priority)
		}
		if k.Name == "" || seen[k.Name] {
			t.Errorf("the name %q is taken", k.Name)
		}
		seen[k.Name] = true
	}
}

func TestKindsAreComplete(t *testing.T) {
	for _, k := range List() {
		s, err := schema.Compile(k.Name, k.Schema, resource.SchemaRefs()...)
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		if err := s.Validate(map[string]any{}); err != nil {
			t.Errorf("%s: an empty configuration: %v", k.Name, err)
		}
		if k.Build == nil {
			t.Errorf("%s cannot be built", k.Name)
		}
	}
}
