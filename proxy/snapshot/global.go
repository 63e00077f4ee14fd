package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"headgate/conf/resource"
	"headgate/proxy/phase"
)

// globalUnit is what all global rules are compiled as: one chain (contract section 2.7 item 4).
const globalUnit = "global_rules"

// globals is the compiled chain of all global rules.
type globals struct{ part }

// Global returns the chain of the global rules, nil without any.
func (s *Snapshot) Global() *phase.Chain { return s.global }

// compileGlobals compiles every global rule anew; there are few, and what their plugins remember is kept by identity. A rule that does
// not compile stays as it was when the stage is lenient.
func (st *Stage) compileGlobals() (*globals, error) {
	docs := map[string][]byte{} // of the rules that take part
	var again []string          // those that had been left out
	for _, key := range st.globalKeys() {
		doc, retried := st.latest(key)
		if doc == nil {
			continue
		}
		docs[key] = doc
		if retried {
			again = append(again, key)
		}
	}
	var deps []string // of every version that was tried
	for {
		g, failed, err := st.buildGlobals(docs)
		deps = append(deps, st.deps[globalUnit]...)
		if err == nil {
			for _, key := range again {
				if _, left := st.left[key]; !left {
					st.Recovered = append(st.Recovered, key)
				}
			}
			st.deps[globalUnit] = deps // a rule that was left out is tried again when what it needs is edited
			return g, nil
		}
		tried := docs[failed]
		_, retried := st.c.left[failed]
		if !st.lenient && !retried {
			return nil, &Problem{failed, err}
		}
		st.leaveOut(failed, tried, err)
		// The version in force stands in, unless it is what has just failed.
		if stands := st.docs(failed); stands != nil && string(stands) != string(tried) {
			docs[failed] = stands
		} else {
			delete(docs, failed)
		}
	}
}

// buildGlobals compiles docs together. After an error failed is the rule that it is about.
func (st *Stage) buildGlobals(docs map[string][]byte) (g *globals, failed string, err error) {
	g = &globals{}
	g.slots.Class = phase.GlobalSlots
	b := &builder{st: st, unit: globalUnit, p: &g.part}
	st.deps[globalUnit] = nil
	if st.c.globals != nil {
		b.prev = &st.c.globals.part
	}
	var list []configured
	keys := make([]string, 0, len(docs))
	for key := range docs {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		doc, err := resource.DecodePluginSet(docs[key])
		var own []configured
		if err == nil {
			own, err = b.configure(nil, doc.Plugins, key)
		}
		if err != nil {
			b.fail()
			return nil, key, err
		}
		list = append(list, own...)
	}
	if failed, err = b.chain(st.withoutTwins(list), true); err != nil {
		b.fail()
		return nil, failed, err
	}
	return g, "", nil
}

// withoutTwins drops, of the plugins that several rules have, all but that of the rule that was stored first. (The contract runs none of
// them, section 2.7: then two operators who protect everything with the same plugin at the same moment would leave everything open.)
func (st *Stage) withoutTwins(list []configured) []configured {
	st.Shadowed = map[string]error{}
	holder := st.c.runningGlobals(list, st.inOrderOf)
	return slices.DeleteFunc(list, func(c configured) bool {
		first := holder[c.name]
		if c.disabled || first == c.owner {
			return false
		}
		why := fmt.Errorf("plugin %s runs from %s, which was stored first", c.name, first)
		if first == "" {
			why = fmt.Errorf("plugin %s stands in several global rules and runs for none of them", c.name)
		}
		st.Warnings = append(st.Warnings, c.owner+": "+why.Error())
		st.Shadowed[c.owner] = errors.Join(st.Shadowed[c.owner], why)
		return true
	})
}

// runningGlobals returns from which rule each plugin of list runs; "" for none of those that have it. older orders rules by age.
func (c *Compiler) runningGlobals(list []configured, older func(a, b string) int) map[string]string {
	holder := map[string]string{}
	for _, p := range list {
		first, twice := holder[p.name]
		switch {
		case p.disabled:
		case twice && c.opt.GlobalTwinsStop:
			holder[p.name] = ""
		case !twice || older(p.owner, first) < 0:
			holder[p.name] = p.owner
		}
	}
	return holder
}

// GlobalRuleWith returns the id of a global rule other than except that has the plugin, "" when there is none.
func (c *Compiler) GlobalRuleWith(docs Lookup, plugin, except string) string {
	for _, key := range c.keysBelow(globalUnit, nil) {
		_, id, _ := strings.Cut(key, "/")
		if id == except {
			continue
		}
		doc, err := resource.DecodePluginSet(docs(key))
		if err == nil && slices.ContainsFunc(doc.Plugins, func(p resource.Plugin) bool { return p.Name == plugin }) {
			return id
		}
	}
	return ""
}
