package resource

import (
	"slices"

	"headgate/conf/schema"
)

// Surveyor is an Env that can tell more of a plugin's configuration than the first mistake.
type Surveyor interface {
	Env
	// Names lists the plugins that are present.
	Names() []string
	// PluginProblems is CheckPlugin by the plugin's schema alone, with everything that is wrong; none when the schema lets conf pass.
	PluginProblems(name string, conf any, use Use) []schema.Problem
}

// Mistakes returns everything that can be told of what is wrong with a document that Validate refuses, none of one that it does not. Paths
// lead to members of doc. It is for people who write a file; clients of the Admin API get what Validate says.
func Mistakes(k Kind, id string, doc map[string]any, env Surveyor) []schema.Problem {
	refusal := Validate(k, id, doc, env)
	if refusal == nil {
		return nil
	}
	var list []schema.Problem
	if k.Segment != segmentSecrets && k.Segment != segmentPluginMetadata { // which have schemas of their own
		list = schemas().bySegment[k.Segment].Problems(doc)
		if k.Segment == segmentRoutes {
			if err := checkOnlyOne(doc); err != nil { // which Validate says before any schema does
				list = append(list, schema.Problem{Msg: err.Msg})
			}
		}
		broken := func(name string) bool {
			return slices.ContainsFunc(list, func(p schema.Problem) bool { return len(p.Path) > 0 && p.Path[0] == name })
		}
		for _, name := range sortedKeys(doc) {
			if !broken(name) {
				list = append(list, memberMistakes(k, name, doc[name], env)...)
			}
		}
	}
	if len(list) == 0 { // no single member has it
		list = []schema.Problem{{Msg: refusal.Msg}}
	}
	return list
}

// memberMistakes judges a member that satisfies the schema as if it were the only one.
func memberMistakes(k Kind, name string, value any, env Surveyor) []schema.Problem {
	if name == "plugins" {
		return pluginMistakes(k, value, env)
	}
	var refusal *Error
	switch alone := map[string]any{name: value}; k.Segment {
	case segmentRoutes:
		refusal = checkRoute(alone, env)
	case segmentServices:
		refusal = checkService(alone, env)
	case segmentConsumers:
		if name == "group_id" {
			refusal = checkGroup(alone, env)
		}
	}
	if refusal == nil {
		return nil
	}
	return []schema.Problem{{Path: []any{name}, Msg: refusal.Msg}}
}

func pluginMistakes(k Kind, plugins any, env Surveyor) (list []schema.Problem) {
	use := InRoute
	if k.Segment == segmentConsumers || k.Segment == segmentCredentials {
		use = InConsumer
	}
	byName, _ := plugins.(map[string]any)
	for _, name := range sortedKeys(byName) {
		refusal := checkPluginsFor(map[string]any{name: byName[name]}, env, use)
		if refusal == nil {
			continue
		}
		path := []any{"plugins", name}
		var known []string
		var inside []schema.Problem
		switch env.Plugin(name) {
		case PluginUnknown:
			known = env.Names()
		case PluginPresent:
			as := use
			if !env.IsAuth(name) {
				as = InRoute
			}
			inside = env.PluginProblems(name, byName[name], as)
		}
		if len(inside) == 0 {
			list = append(list, schema.Problem{Path: path, Msg: refusal.Msg, Known: known})
		}
		for _, p := range inside {
			p.Path = append(slices.Clone(path), p.Path...)
			list = append(list, p)
		}
	}
	return list
}
