package snapshot

import (
	"slices"

	"headgate/conf/resource"
	"headgate/proxy/phase"
)

// ExplainedPlugin is one configuration of a plugin that concerns an exchange, in the form in which the control API shows it.
type ExplainedPlugin struct {
	Name     string `json:"name"`
	Priority int    `json:"priority"`
	// From is the key of the document that has it.
	From string `json:"from"`
	// Chain is "global" for that of the global rules, which runs first in each phase, else "route".
	Chain string `json:"chain"`
	// Phases are those in which this configuration runs.
	Phases []string `json:"phases"`
	// State is "runs", or why it does not.
	State string `json:"state"`
}

// Runs says that this configuration is in force for the exchange.
func (p *ExplainedPlugin) Runs() bool { return p.State == stateRuns }

// Global says that it is a global rule's.
func (p *ExplainedPlugin) Global() bool { return p.Chain == chainGlobal }

// The values of State that are no sentences.
const (
	stateRuns     = "runs"
	stateDisabled = "disabled"
	stateFiltered = "filtered out"
	stateInert    = "not implemented here; accepted without running"

	chainGlobal = "global"
	chainRoute  = "route"
)

// Plugins returns what is configured for x, in the order of execution: for the route r, which may be nil, for the consumer with which
// phase.Exchange.Preview was called, and in the global rules. x must have entered the chains of s.
func (s *Sight) Plugins(p *Papers, r *Route, x *phase.Exchange) ([]ExplainedPlugin, error) {
	own, err := s.sources(p, r, x)
	if err != nil {
		return nil, err
	}
	list, err := s.globalPlugins(p, x, own)
	if err != nil {
		return nil, err
	}
	return append(list, s.ownPlugins(own, r, x)...), nil
}

// source is a document that configures plugins for an exchange.
type source struct {
	owner string
	chain *phase.Chain
	// ofRoute: several documents become the one chain of a route, in which one configuration of a plugin is left.
	ofRoute bool
	list    []configured
	inert   []string
}

// sources returns the documents other than global rules, those that the route is made of first, and of two the one that wins later.
func (s *Sight) sources(p *Papers, r *Route, x *phase.Exchange) (list []source, err error) {
	b := &builder{st: &Stage{c: s.c, docs: p.Get, deps: map[string][]string{}}, p: &part{}}
	add := func(ofRoute bool, owner string, chain *phase.Chain, plugins []resource.Plugin) {
		if err == nil {
			var one source
			one, err = b.source(owner, chain, plugins)
			one.ofRoute = ofRoute
			list = append(list, one)
		}
	}
	if r != nil {
		doc, err := resource.DecodeRoute(p.Get(r.Key))
		if err != nil {
			return nil, err
		}
		rb := &routeBuilder{builder: *b, doc: doc, r: &Route{Route: phase.Route{Key: r.Key}}}
		if err := rb.service(); err != nil {
			return nil, err
		}
		if err := rb.pluginConfig(); err != nil {
			return nil, err
		}
		if rb.serves != nil {
			add(true, rb.r.ServiceKey, r.Chain, rb.serves.Plugins)
		}
		if rb.config != nil {
			add(true, "plugin_configs/"+doc.PluginConfigID, r.Chain, rb.config.Plugins)
		}
		add(true, r.Key, r.Chain, doc.Plugins)
	}
	who := x.Principal()
	if who == nil || err != nil {
		return list, err
	}
	if chain, ok := s.Group(who.Group); ok && who.Group != "" {
		key := "consumer_groups/" + who.Group
		doc, err := resource.DecodePluginSet(p.Get(key))
		if err != nil {
			return nil, err
		}
		add(false, key, chain, doc.Plugins)
	}
	key := "consumers/" + who.Name
	doc, e := resource.DecodeConsumer(p.Get(key))
	if e != nil {
		return nil, e
	}
	add(false, key, who.Chain, slices.DeleteFunc(doc.Plugins, func(p resource.Plugin) bool { return s.c.IsAuth(p.Name) }))
	return list, err
}

func (b *builder) source(owner string, chain *phase.Chain, plugins []resource.Plugin) (source, error) {
	s := source{owner: owner, chain: chain}
	for _, p := range plugins {
		if b.st.c.kinds[p.Name] == nil {
			s.inert = append(s.inert, p.Name)
		}
	}
	var err error
	s.list, err = b.configure(nil, plugins, owner)
	return s, err
}

// holderOf returns which of the sources wins for a plugin, "" when none has it.
func holderOf(sources []source, name string) string {
	for _, src := range slices.Backward(sources) {
		if slices.ContainsFunc(src.list, func(c configured) bool { return c.name == name }) {
			return src.owner
		}
	}
	return ""
}

// ownPlugins are those of the route, the consumer's group and the consumer.
func (s *Sight) ownPlugins(sources []source, r *Route, x *phase.Exchange) (list []ExplainedPlugin) {
	made := slices.IndexFunc(sources, func(src source) bool { return !src.ofRoute })
	if made < 0 {
		made = len(sources)
	}
	// Of equal priority those of the route come first, in the order in which its documents win; then the group's, then the consumer's.
	var all []configured
	of := map[string]source{}
	for _, src := range slices.Concat(backward(sources[:made]), sources[made:]) {
		all = append(all, src.list...)
		of[src.owner] = src
	}
	sortByPriority(all)
	for _, c := range all {
		e := ExplainedPlugin{Name: c.name, Priority: c.priority, From: c.owner, Chain: chainRoute, Phases: []string{}, State: stateRuns}
		src := of[c.owner]
		var st phase.Standing
		if !c.disabled && (!src.ofRoute || holderOf(sources[:made], c.name) == c.owner) {
			st = x.Standing(src.chain, c.kind.number)
		}
		switch winner := holderOf(sources, c.name); {
		case winner != c.owner:
			e.State = "overridden by " + winner
		case c.disabled:
			e.State = stateDisabled
		case r != nil && r.Incomplete != nil:
			e.State, st.Phases = "not reached: "+r.Incomplete.Code, nil
		case st.FilteredOut:
			e.State = stateFiltered
		}
		if len(st.Phases) > 0 && !st.FilteredOut {
			e.Phases = st.Phases
		}
		list = append(list, e)
	}
	for _, src := range sources {
		list = append(list, inertPlugins(src, chainRoute)...)
	}
	return list
}

func backward(sources []source) []source {
	turned := slices.Clone(sources)
	slices.Reverse(turned)
	return turned
}

// globalPlugins are those of the global rules; own are the sources of the exchange's other plugins.
func (s *Sight) globalPlugins(p *Papers, x *phase.Exchange, own []source) ([]ExplainedPlugin, error) {
	b := &builder{st: &Stage{c: s.c, docs: p.Get, deps: map[string][]string{}}, p: &part{}}
	var all []configured
	list := []ExplainedPlugin{}
	var inert []ExplainedPlugin
	for _, key := range p.rules {
		raw := p.Get(key)
		if raw == nil { // no version of it compiles
			continue
		}
		doc, err := resource.DecodePluginSet(raw)
		if err != nil {
			return nil, err
		}
		src, err := b.source(key, s.global, doc.Plugins)
		if err != nil {
			return nil, err
		}
		all = append(all, src.list...)
		inert = append(inert, inertPlugins(src, chainGlobal)...)
	}
	holders := s.c.runningGlobals(all, func(a, b string) int { return slices.Index(p.oldest, a) - slices.Index(p.oldest, b) })
	sortByPriority(all)
	for _, c := range all {
		e := ExplainedPlugin{Name: c.name, Priority: c.priority, From: c.owner, Chain: chainGlobal, Phases: []string{}, State: stateRuns}
		st := phase.Standing{}
		switch {
		case c.disabled:
			e.State = stateDisabled
		case holders[c.name] == "":
			e.State = "runs for none: several global rules have it"
		case holders[c.name] != c.owner:
			e.State = "overridden by " + holders[c.name]
		default:
			st = x.Standing(s.global, c.kind.number)
		}
		switch {
		case st.Preferred:
			e.State = "overridden by " + holderOf(own, c.name)
		case st.FilteredOut:
			e.State = stateFiltered
		case len(st.Phases) > 0:
			e.Phases = st.Phases
		}
		list = append(list, e)
	}
	return append(list, inert...), nil
}

func inertPlugins(src source, chain string) (list []ExplainedPlugin) {
	for _, name := range src.inert {
		list = append(list, ExplainedPlugin{Name: name, From: src.owner, Chain: chain, Phases: []string{}, State: stateInert})
	}
	return list
}
