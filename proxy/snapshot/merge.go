package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"headgate/proxy/phase"
)

// meta is what _meta may say in any plugin's configuration (contract section 1.7); nil members are absent.
type meta struct {
	disabled      bool
	priority      int
	filter        any
	errorResponse any
}

// recorderPlugin is the plugin that asks for a route's metrics.
const recorderPlugin = "prometheus"

// merged returns the plugins in force on the route: its own win over those of its plugin config, and those over the service's, each as a
// whole (contract section 2.7). One that is switched off is not taken from further down either.
func (b *routeBuilder) merged() ([]configured, error) {
	list, err := b.configure(nil, b.doc.Plugins, b.r.Key)
	if err == nil && b.config != nil {
		list, err = b.configure(list, b.config.Plugins, "plugin_configs/"+b.doc.PluginConfigID)
	}
	if err == nil && b.serves != nil {
		list, err = b.configure(list, b.serves.Plugins, b.r.ServiceKey)
	}
	for _, c := range list {
		b.counted = b.counted || c.name == recorderPlugin && !c.disabled
	}
	return list, err
}

// plugins merges the plugins that the route is made of and builds them.
func (b *routeBuilder) plugins() error {
	list, err := b.merged()
	if err != nil {
		return err
	}
	if _, err := b.chain(list, false); err != nil {
		return err
	}
	if b.r.Upstream != nil && b.counts() {
		b.r.Count = counting{b.st.c.opt.Meter.Branch(b.r.ID, b.r.Branch)}
	}
	return nil
}

// counts says whether the route's requests are counted by branch.
func (b *routeBuilder) counts() bool { return b.st.c.opt.CountAll || b.counted }

// metaOf reads _meta as generously as the schema that it passed: numbers may be written 1.0, empty objects as empty arrays.
func metaOf(conf any, priority int) (meta, error) {
	m := meta{priority: priority}
	doc, _ := conf.(map[string]any)
	own, _ := doc["_meta"].(map[string]any)
	if m.disabled = own["disable"] == true; m.disabled {
		return m, nil // whatever else it says
	}
	m.filter, m.errorResponse = own["filter"], own["error_response"]
	if v, has := own["priority"]; has {
		n, _ := v.(json.Number)
		f, err := strconv.ParseFloat(string(n), 64)
		if err != nil || f != float64(int(f)) || f < -1<<53 || f > 1<<53 {
			return m, errors.New("_meta.priority: expected an integer of at most 53 bits")
		}
		m.priority = int(f)
	}
	if _, has := own["pre_function"]; has {
		return m, errors.New("_meta.pre_function is not supported")
	}
	return m, nil
}

// withoutMeta leaves out _meta, which the compiler handles and no plugin knows.
func withoutMeta(conf any) any {
	if !hasMeta(conf) {
		return conf
	}
	m := conf.(map[string]any)
	plain := make(map[string]any, len(m))
	for k, v := range m {
		if k != "_meta" {
			plain[k] = v
		}
	}
	return plain
}

func hasMeta(conf any) bool {
	m, _ := conf.(map[string]any)
	_, has := m["_meta"]
	return has
}

// compilePredicate compiles decoded vars. The empty object is the empty array (contract section 1.6).
func compilePredicate(vars any) (phase.Predicate, error) {
	if m, ok := vars.(map[string]any); ok && len(m) == 0 {
		vars = []any{}
	}
	p, err := phase.CompilePredicate(vars)
	if err != nil {
		return nil, fmt.Errorf("failed to validate the 'vars' expression: %w", err)
	}
	return p, nil
}
