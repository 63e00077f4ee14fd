package plugins

import (
	"testing"

	"headgate/conf/resource"
	"headgate/conf/schema"
)

func TestListIsSorted(t *testing.T) {
	list := List(Options{})
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
	for _, k := range List(Options{}) {
		s, err := schema.Compile(k.Name, k.Schema, resource.SchemaRefs()...)
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		if s.Validate("no object") == nil {
			t.Errorf("%s: a text passes for a configuration", k.Name)
		}
		if priority, known := resource.KnownPlugin(k.Name); !known || priority != k.Priority {
			t.Errorf("%s has the priority %d, the contract's has %d (known: %v)", k.Name, k.Priority, priority, known)
		}
		if k.Build == nil {
			t.Errorf("%s cannot be built", k.Name)
		}
	}
}
