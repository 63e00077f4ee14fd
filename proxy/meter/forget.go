package meter

// owner is everything that was made for one value of the label route. Its fields are guarded by Registry.mu.
type owner struct {
	routes    map[RouteLabels]*RouteSeries
	made      []made
	forgotten bool // nothing may be registered on its behalf any more
}

// made is a series and the family that it is in.
type made struct {
	family *family
	series *series
}

func ownerOf(owners map[string]*owner, route string) *owner {
	o := owners[route]
	if o == nil {
		o = &owner{}
		owners[route] = o
	}
	return o
}

// ForgetRoutes removes from the exposition, and from what the limits count, the branch counters of the routes ids and every series
// that was made through a RouteSeries whose label route is one of labels. Handles that are still held go on working and nothing shows
// them; whoever asks for the same labels later gets new ones that start at 0. Values that nothing was made for are ignored. The
// series of the value Other that take what has no room stay.
func (r *Registry) ForgetRoutes(ids, labels []string) {
	for _, s := range r.forget(ids, labels) {
		s.uncount()
	}
}

// Recorded says whether there is a RouteSeries whose label route is label.
func (r *Registry) Recorded(label string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.routes[label] != nil
}

// forget returns the RouteSeries that it forgot. Their own locks come before Registry.mu, so it leaves them as they are.
func (r *Registry) forget(ids, labels []string) (left []*RouteSeries) {
	r.mu.Lock()
	defer r.mu.Unlock()
	shrunk := map[*family]bool{}
	drop := func(owners map[string]*owner, route string) {
		o := owners[route]
		if o == nil {
			return
		}
		delete(owners, route)
		o.forgotten = true
		for _, m := range o.made {
			if !m.series.shared {
				m.series.gone = true
				delete(m.family.series, m.series.labels)
				shrunk[m.family] = true
			}
		}
		for _, s := range o.routes {
			left = append(left, s)
		}
		o.made, o.routes = nil, nil
	}
	for _, id := range ids {
		drop(r.branches, id)
	}
	for _, l := range labels {
		drop(r.routes, l)
	}
	for f := range shrunk {
		f.list, f.sorted = without(f.list, len(f.series)), without(f.sorted, len(f.series))
		f.epoch++
	}
	return left
}

// without returns a copy of list, which a reader may hold, without what is gone; n is how many series are left at most.
func without(list []*series, n int) []*series {
	left := make([]*series, 0, n)
	for _, s := range list {
		if !s.gone {
			left = append(left, s)
		}
	}
	return left
}

// uncount takes the combinations of s out of the count of all, and keeps those that it makes from now on out of it.
func (s *RouteSeries) uncount() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.table.Load(); t != nil {
		s.reg.combinations.Add(-t.used.Load())
	}
	s.uncounted = true
}
