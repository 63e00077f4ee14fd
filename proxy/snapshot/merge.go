package snapshot

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"headgate/conf/resource"
	"headgate/conf/schema"
	"headgate/proxy/phase"
)

// configured is one plugin of a route after merging.
type configured struct {
	name  string
	owner string // key of the document that holds the configuration
	conf  any    // without _meta
	kind  *kind
	meta
}

// meta is what _meta may say in any plugin's configuration (contract section 1.7); nil members are absent.
type meta struct {
	disabled      bool
	priority      int
	filter        any
	errorResponse any
}

// plugins merges the plugins of route and service, puts them in order and builds them.
func (b *builder) plugins() error {
	list, err := b.merged()
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(p, q configured) int { return cmp.Compare(q.priority, p.priority) })
	instances := make([]phase.Instance, 0, len(list))
	for _, p := range list {
		var i phase.Instance
		if i, err = b.build(p); err != nil {
			err = fmt.Errorf("failed to check the configuration of plugin %s err: %w", p.name, err)
			break
		}
		instances = append(instances, i)
	}
	if len(instances) > 0 { // also after an error: what was built is closed with the chain
		b.r.Chain = phase.NewChain(instances)
	}
	if err == nil && b.r.Upstream != nil && b.counts() {
		b.r.Count = b.st.c.opt.Meter.Branch(b.r.ID, b.r.Branch)
	}
	return err
}

// counts says whether the route's requests are counted by branch.
func (b *builder) counts() bool { return b.st.c.opt.CountAll || b.counted }

// recorderPlugin is the plugin that asks for a route's metrics.
const recorderPlugin = "prometheus"

// merged returns the plugins in force: the route's win over those of its service, each as a whole (contract section 2.7). One that the
// route disables is not taken from the service either.
func (b *builder) merged() ([]configured, error) {
	var list []configured
	add := func(plugins []resource.Plugin, owner string) error {
		for _, p := range plugins {
			if slices.ContainsFunc(list, func(q configured) bool { return q.name == p.Name }) {
				continue
			}
			k := b.st.c.kinds[p.Name]
			if k == nil {
				return errors.New("unknown plugin [" + p.Name + "]")
			}
			c := configured{name: p.Name, owner: owner, kind: k}
			var err error
			if c.conf, err = schema.DecodeJSON(p.Conf); err == nil {
				c.meta, err = metaOf(c.conf, k.Priority)
			}
			if err != nil {
				return fmt.Errorf("failed to check the configuration of plugin %s err: %w", p.Name, err)
			}
			c.conf = withoutMeta(c.conf)
			list = append(list, c)
		}
		return nil
	}
	if err := add(b.doc.Plugins, b.r.Key); err != nil {
		return nil, err
	}
	if b.serves != nil {
		if err := add(b.serves.Plugins, b.r.ServiceKey); err != nil {
			return nil, err
		}
	}
	list = slices.DeleteFunc(list, func(c configured) bool { return c.disabled })
	for _, c := range list {
		b.counted = b.counted || c.name == recorderPlugin
	}
	return list, nil
}

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
	m, ok := conf.(map[string]any)
	if !ok {
		return conf
	}
	if _, has := m["_meta"]; !has {
		return conf
	}
	plain := make(map[string]any, len(m))
	for k, v := range m {
		if k != "_meta" {
			plain[k] = v
		}
	}
	return plain
}

// build makes the instance of p.
func (b *builder) build(p configured) (phase.Instance, error) {
	i := phase.Instance{Name: p.name}
	conf, err := resource.Encode(p.conf)
	if err != nil {
		return i, err
	}
	e := &env{builder: b, plugin: p.name, owner: p.owner}
	if p.filter != nil {
		if i.When, err = compilePredicate(p.filter); err != nil {
			return i, err
		}
		i.Slot = e.Slot()
	}
	switch answer := p.errorResponse.(type) {
	case nil:
	case string:
		i.ErrorType, i.ErrorBody = phase.TypeText, []byte(answer)
	default:
		if i.ErrorBody, err = resource.Encode(answer); err != nil {
			return i, err
		}
		i.ErrorType, i.ErrorBody = phase.TypeText, append(i.ErrorBody, '\n')
	}
	i.Plugin, err = p.kind.Build(conf, e)
	return i, err
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
