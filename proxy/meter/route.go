package meter

import (
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Values of the label request_type (contract section 5).
const (
	TraditionalHTTP = "traditional_http"
	AIChat          = "ai_chat"
	AIStream        = "ai_stream"
)

// Source says who made the response: the label response_source.
type Source uint8

const (
	SourceAPISIX   Source = iota // a plugin or the router of this gateway
	SourceNginx                  // the proxy engine, e.g. 502 for a dead upstream
	SourceUpstream               // the upstream
)

func (s Source) String() string {
	switch s {
	case SourceNginx:
		return "nginx"
	case SourceUpstream:
		return "upstream"
	default:
		return "apisix"
	}
}

// RouteLabels are the labels that are known when a route is compiled. MatchedURI and MatchedHost are patterns, so a route with
// several of them has a RouteSeries for each. All are "" for requests without a route (contract section 2.6).
type RouteLabels struct {
	Route, MatchedURI, MatchedHost, Service string
	// Disabled are labels whose value is left empty.
	Disabled Disabled
}

// Observation is what one finished exchange adds. Its strings may be views of a request's memory: they are copied when a
// combination is seen for the first time and only compared after that.
type Observation struct {
	Code         int    // status sent to the client
	Node         string // IP of the last endpoint tried, "" for none
	Consumer     string
	RequestType  string // TraditionalHTTP, AIChat or AIStream; "" means TraditionalHTTP
	RequestModel string // as asked for; cut to 128 bytes
	Model        string // as answered; cut to 128 bytes
	Source       Source
	Request      time.Duration // from the first byte read to the last byte written
	Upstream     time.Duration // part of Request spent on upstreams
	HasUpstream  bool          // false when no upstream was tried: then Upstream is not recorded
	In, Out      int64         // bytes, heads included
}

const (
	maxModelBytes = 128
	// maxCombinations of one RouteSeries. Clients choose model names, so past it new models share a series; past twice as
	// many, or when all routes together have as many as a metric may have series, new nodes and consumers do so too.
	maxCombinations = 4096
)

// RouteSeries records the requests of one route. Observe neither locks nor allocates for a combination of labels that it has seen.
type RouteSeries struct {
	reg       *Registry
	owner     *owner
	labels    RouteLabels
	table     atomic.Pointer[comboTable]
	mu        sync.Mutex // makes combinations and tables; taken before Registry.mu
	uncounted bool       // its combinations are not part of Registry.combinations any more; guarded by mu
}

// Route returns the series of labels: the same labels get the same series, across reloads, until ForgetRoutes.
func (r *Registry) Route(labels RouteLabels) *RouteSeries {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := ownerOf(r.routes, labels.Route)
	s := o.routes[labels]
	if s == nil {
		s = &RouteSeries{reg: r, owner: o, labels: labels}
		if o.routes == nil {
			o.routes = make(map[RouteLabels]*RouteSeries)
		}
		o.routes[labels] = s
	}
	return s
}

// Observe adds one exchange to http_status, http_latency and bandwidth.
func (s *RouteSeries) Observe(o Observation) {
	key := comboKey{
		code:         o.Code,
		source:       o.Source,
		requestType:  o.RequestType,
		node:         o.Node,
		consumer:     o.Consumer,
		requestModel: cutModel(o.RequestModel),
		model:        cutModel(o.Model),
	}
	if key.requestType == "" {
		key.requestType = TraditionalHTTP
	}
	c := s.find(&key)
	c.status.Inc()
	c.ingress.Add(o.In)
	c.egress.Add(o.Out)
	gateway := o.Request
	if o.HasUpstream {
		h := c.upstream.Load()
		if h == nil {
			h = s.addUpstream(c)
		}
		h.Observe(milliseconds(o.Upstream))
		gateway -= o.Upstream
	}
	c.request.Observe(milliseconds(o.Request))
	c.gateway.Observe(milliseconds(gateway))
}

// milliseconds floors at 0: the clocks of request and upstream are read at different moments (contract section 5).
func milliseconds(d time.Duration) float64 { return float64(max(d, 0)) / float64(time.Millisecond) }

// cutModel shortens at a rune boundary, so that the cut leaves no invalid text behind.
func cutModel(m string) string {
	if len(m) <= maxModelBytes {
		return m
	}
	n := maxModelBytes
	for n > maxModelBytes-utf8.UTFMax && !utf8.RuneStart(m[n]) {
		n--
	}
	return m[:n]
}

// comboKey is one combination of the labels that vary from request to request.
type comboKey struct {
	code                                             int
	source                                           Source
	requestType, node, consumer, requestModel, model string
}

func (k *comboKey) hash(seed maphash.Seed) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h := (uint64(k.code)<<8 | uint64(k.source) | uint64(len(k.requestType))<<32) * odd
	for _, v := range [...]string{k.node, k.consumer, k.requestModel, k.model} {
		if v != "" {
			h ^= maphash.String(seed, v)
		}
		h = (h ^ h>>29) * odd
	}
	return h ^ h>>32
}

// combo is the handles of one combination. Everything but upstream is set before the combo can be found.
type combo struct {
	key              comboKey
	hash             uint64
	status           *Counter
	ingress, egress  *Counter
	request, gateway *Histogram
	upstream         atomic.Pointer[Histogram] // made by the first request that reached an upstream
}

// comboTable is an open-addressed hash table, at most half full. A slot goes from nil to a combo once; a bigger table replaces the
// whole one.
type comboTable struct {
	slots []atomic.Pointer[combo] // power of two
	used  atomic.Int64
}

func (t *comboTable) find(key *comboKey, hash uint64) *combo {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		c := t.slots[i].Load()
		if c == nil || c.hash == hash && c.key == *key {
			return c
		}
	}
}

func (t *comboTable) insert(c *combo) {
	mask := uint64(len(t.slots) - 1)
	i := c.hash & mask
	for t.slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	t.slots[i].Store(c)
	t.used.Add(1)
}

func (s *RouteSeries) find(key *comboKey) *combo {
	hash := key.hash(s.reg.seed)
	t := s.table.Load()
	var used int64
	if t != nil {
		if c := t.find(key, hash); c != nil {
			return c
		}
		used = t.used.Load()
	}
	r := s.reg
	full := r.combinations.Load() >= int64(r.maxSeries)
	if used < r.maxCombinations && !full {
		return s.add(key, hash)
	}
	r.crowded.Inc()
	key.collapse(full || used >= 2*r.maxCombinations)
	hash = key.hash(r.seed)
	if t != nil {
		if c := t.find(key, hash); c != nil {
			return c
		}
	}
	return s.add(key, hash)
}

// collapse folds the labels without a bound of their own into Other. What all folds leaves is bounded by construction: three digits
// of code, the sources and the request types.
func (k *comboKey) collapse(all bool) {
	fold := func(v *string) {
		if *v != "" {
			*v = Other
		}
	}
	fold(&k.requestModel)
	fold(&k.model)
	if !all {
		return
	}
	fold(&k.node)
	fold(&k.consumer)
	if k.code < 100 || k.code > 999 {
		k.code = 0
	}
	if k.requestType != TraditionalHTTP && k.requestType != AIChat && k.requestType != AIStream {
		k.requestType = Other
	}
}

// add returns the combination of key, made by this call or by one that came first.
func (s *RouteSeries) add(key *comboKey, hash uint64) *combo {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		t = &comboTable{slots: make([]atomic.Pointer[combo], 8)}
		s.table.Store(t)
	} else if c := t.find(key, hash); c != nil {
		return c
	}
	c := s.newCombo(key, hash)
	if !s.uncounted {
		s.reg.combinations.Add(1)
	}
	if 2*(int(t.used.Load())+1) > len(t.slots) {
		bigger := &comboTable{slots: make([]atomic.Pointer[combo], 2*len(t.slots))}
		for i := range t.slots {
			if old := t.slots[i].Load(); old != nil {
				bigger.insert(old)
			}
		}
		bigger.insert(c)
		s.table.Store(bigger)
		return c
	}
	t.insert(c)
	return c
}

func (s *RouteSeries) newCombo(k *comboKey, hash uint64) *combo {
	key := *k
	for _, v := range []*string{&key.requestType, &key.node, &key.consumer, &key.requestModel, &key.model} {
		*v = strings.Clone(*v)
	}
	c := &combo{key: key, hash: hash}
	l := s.labels
	c.status = s.counter(HTTPStatus, l.Disabled.Status.blank([]Label{
		{"code", strconv.Itoa(key.code)},
		{"route", l.Route},
		{"matched_uri", l.MatchedURI},
		{"matched_host", l.MatchedHost},
		{"service", l.Service},
		{"consumer", key.consumer},
		{"node", key.node},
		{"request_type", key.requestType},
		{"request_llm_model", key.requestModel},
		{"llm_model", key.model},
		{"response_source", key.source.String()},
	})...)
	c.ingress = s.counter(Bandwidth, l.Disabled.Bandwidth.blank(s.typed("ingress", &key))...)
	c.egress = s.counter(Bandwidth, l.Disabled.Bandwidth.blank(s.typed("egress", &key))...)
	c.request = s.latency(s.typed("request", &key))
	c.gateway = s.latency(s.typed("apisix", &key))
	return c
}

func (s *RouteSeries) addUpstream(c *combo) *Histogram {
	// The registry hands the same histogram to all who race here, unless the series was forgotten.
	h := s.latency(s.typed("upstream", &c.key))
	if !c.upstream.CompareAndSwap(nil, h) {
		return c.upstream.Load()
	}
	return h
}

func (s *RouteSeries) counter(name string, labels ...Label) *Counter {
	s.reg.mu.Lock()
	defer s.reg.mu.Unlock()
	return s.reg.counterLocked(s.owner, name, labels)
}

func (s *RouteSeries) latency(labels []Label) *Histogram {
	s.reg.mu.Lock()
	defer s.reg.mu.Unlock()
	return s.reg.histogramLocked(s.owner, HTTPLatency, s.reg.buckets, s.labels.Disabled.Latency.blank(labels))
}

// typed returns the labels that http_latency and bandwidth share.
func (s *RouteSeries) typed(typ string, key *comboKey) []Label {
	return []Label{
		{"type", typ},
		{"route", s.labels.Route},
		{"service", s.labels.Service},
		{"consumer", key.consumer},
		{"node", key.node},
		{"request_type", key.requestType},
		{"request_llm_model", key.requestModel},
		{"llm_model", key.model},
	}
}
