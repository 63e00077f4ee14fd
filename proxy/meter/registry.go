// Package meter holds the metrics of the gateway: their names, and handles that are made while a configuration is compiled and
// used on the request path without a lock, an allocation or a lookup by text.
//
// The same name with the same labels is the same handle, so that counts survive a reload. The exposition is the Prometheus text
// format 0.0.4.
package meter

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
)

// DefaultMaxSeries bounds the series of one metric name.
const DefaultMaxSeries = 50_000

// DefaultPrefix starts the names of the contract's metrics (contract section 5, metric_prefix).
const DefaultPrefix = "apisix_"

// Other is the value of every label of the series that takes what has no room of its own.
const Other = "other"

// Label is one label of a series. The value may be any text: it is escaped, and bytes that the exposition format cannot carry
// become U+FFFD.
type Label struct{ Name, Value string }

// Options of a Registry; the zero value means the defaults.
type Options struct {
	Prefix         string    // default DefaultPrefix
	MaxSeries      int       // per metric name, default DefaultMaxSeries
	LatencyBuckets []float64 // milliseconds, strictly increasing, default LatencyBuckets(); not copied
}

// Registry owns the metric families of one gateway. All methods are safe for concurrent use; those that return handles take a lock
// and belong to compile time.
type Registry struct {
	prefix    string
	maxSeries int
	buckets   []float64
	set       *metrics.Set
	seed      maphash.Seed

	maxCombinations int64        // of one RouteSeries
	combinations    atomic.Int64 // of all RouteSeries
	crowded         *Counter     // overflows of RouteSeries

	mu       sync.Mutex
	families map[string]*family // by full name
	routes   map[string]*owner  // of what RouteSeries made, by the label route
	branches map[string]*owner  // of what Branch made, by route
}

// family is all series of one name. Its fields are guarded by Registry.mu.
type family struct {
	name    string // with prefix
	short   string // as registered, the value of the label of MetricOverflow
	help    string
	kind    kind
	bounds  []float64          // histogramKind: fixed by the first registration
	series  map[string]*series // by rendered labels
	list    []*series          // the same in order of creation, append-only or replaced: readers may hold a prefix
	sorted  []*series          // the first len(sorted) of list in text order, never written once stored
	epoch   uint64             // how often list was replaced: what was sorted in another epoch holds series that are gone
	collect func(Emit)
	names   []string // label names of collect
}

// series is one line (or one histogram) of the exposition.
type series struct {
	labels string // rendered, without braces: a="b",c="d"
	handle any    // *Counter, *Gauge or *Histogram, as the family's kind says
	shared bool   // takes what has no room of its own, whoever made it first: stays for good; guarded by Registry.mu
	gone   bool   // to be taken out of list and sorted; guarded by Registry.mu
}

type kind uint8

const (
	counterKind kind = iota
	gaugeKind
	histogramKind
)

func (k kind) String() string { return [...]string{"counter", "gauge", "histogram"}[k] }

// New returns a registry with the default limits. An empty prefix means DefaultPrefix.
func New(prefix string) *Registry { return NewWith(Options{Prefix: prefix}) }

// NewWith returns a registry that has every family of names.go and no series. Buckets that do not strictly increase panic.
func NewWith(opt Options) *Registry {
	if opt.Prefix == "" {
		opt.Prefix = DefaultPrefix
	}
	if opt.MaxSeries <= 0 {
		opt.MaxSeries = DefaultMaxSeries
	}
	if len(opt.LatencyBuckets) == 0 {
		opt.LatencyBuckets = LatencyBuckets()
	}
	r := &Registry{
		prefix:    opt.Prefix,
		maxSeries: opt.MaxSeries,
		buckets:   mustBounds(HTTPLatency, opt.LatencyBuckets),
		set:       metrics.NewSet(),
		seed:      maphash.MakeSeed(),

		maxCombinations: maxCombinations,

		families: make(map[string]*family),
		routes:   make(map[string]*owner),
		branches: make(map[string]*owner),
	}
	for _, d := range known() {
		r.familyLocked(d.name, d.kind).help = d.help
	}
	r.crowded = r.overflowCounterLocked(HTTPStatus)
	r.set.RegisterMetricsWriter(r.writeFamilies)
	r.set.RegisterMetricsWriter(writeProcess)
	return r
}

// Describe sets the help text of a family that was registered and that names.go does not have. Others are ignored.
func (r *Registry) Describe(name, help string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.families[r.fullName(name)]; f != nil {
		f.help = help
	}
}

// Counter returns the handle of name with labels, in the given order. Past the limit of series it returns the handle of the
// series whose label values are all Other, and MetricOverflow counts. A name that is no metric name, a label that is no label name,
// and a name that is used with another type panic: they are mistakes of the program, not of its input.
func (r *Registry) Counter(name string, labels ...Label) *Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counterLocked(nil, name, labels)
}

// counterLocked is Counter on behalf of o, which may be nil.
func (r *Registry) counterLocked(o *owner, name string, labels []Label) *Counter {
	f := r.familyLocked(name, counterKind)
	return r.seriesLocked(f, o, labels, func() any { return new(Counter) }).(*Counter)
}

// Gauge returns the handle of name with labels. With fn the value is computed at each exposition; fn must be safe for concurrent
// use and must not block, and the fn of the latest call wins, so that a reload replaces what it closed over. A nil fn makes the
// gauge settable. Panics and limit: see Counter; past the limit fn is not called.
func (r *Registry) Gauge(name string, fn func() float64, labels ...Label) *Gauge {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.familyLocked(name, gaugeKind)
	s := r.findLocked(f, labels)
	if s == nil && len(f.series) >= r.maxSeries {
		// A value that belongs to one thing must not stand for all others: the handle works, and nothing shows it.
		r.overflowLocked(f)
		return new(Gauge)
	}
	g := r.seriesLocked(f, nil, labels, func() any { return new(Gauge) }).(*Gauge)
	if fn == nil {
		g.fn.Store(nil)
	} else {
		g.fn.Store(&fn)
	}
	return g
}

// Histogram returns the handle of name with labels. The first registration of a name fixes its buckets (upper bounds, strictly
// increasing; a last +Inf is implied), later ones are ignored. Panics and limit: see Counter.
func (r *Registry) Histogram(name string, buckets []float64, labels ...Label) *Histogram {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.histogramLocked(nil, name, buckets, labels)
}

// histogramLocked is Histogram on behalf of o, which may be nil.
func (r *Registry) histogramLocked(o *owner, name string, buckets []float64, labels []Label) *Histogram {
	f := r.familyLocked(name, histogramKind)
	if f.bounds == nil {
		f.bounds = mustBounds(name, buckets)
	}
	return r.seriesLocked(f, o, labels, func() any { return newHistogram(f.bounds) }).(*Histogram)
}

// Emit reports one value of a collected gauge; the values belong to the label names given to Collect, in that order.
type Emit func(value float64, labelValues ...string)

// Collect makes name a gauge whose series are reported by fn at each exposition, for things that come and go: what fn no longer
// reports is gone. The latest fn of a name wins. fn must be safe for concurrent use, must not block and must not keep emit; of
// two reports with the same labels the first counts, and those past the limit of series are left out and counted.
func (r *Registry) Collect(name string, labelNames []string, fn func(emit Emit)) {
	for _, n := range labelNames {
		mustLabelName(name, n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.familyLocked(name, gaugeKind)
	f.collect, f.names = fn, slices.Clone(labelNames)
}

// Branch returns the handle that counts the requests of one branch of a route; upstream is the branch's name.
func (r *Registry) Branch(route, upstream string) *Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counterLocked(ownerOf(r.branches, route), HTTPRequests, []Label{{"route", route}, {"upstream", upstream}})
}

func (r *Registry) fullName(name string) string {
	if strings.HasPrefix(name, OwnPrefix) {
		return name
	}
	return r.prefix + name
}

func (r *Registry) familyLocked(name string, k kind) *family {
	full := r.fullName(name)
	f := r.families[full]
	if f == nil {
		if !validName(full, true) {
			panic(fmt.Sprintf("meter: %q is not a metric name", full))
		}
		f = &family{name: full, short: name, kind: k, series: make(map[string]*series)}
		r.families[full] = f
	}
	if f.kind != k {
		panic(fmt.Sprintf("meter: %s is a %s and cannot be used as a %s", full, f.kind, k))
	}
	return f
}

func (r *Registry) findLocked(f *family, labels []Label) *series {
	var scratch [512]byte
	return f.series[string(appendLabels(scratch[:0], labels))]
}

// seriesLocked returns the handle of labels. What it has to make belongs to o, if there is one; an owner that was forgotten gets
// handles that nothing shows.
func (r *Registry) seriesLocked(f *family, o *owner, labels []Label, make func() any) any {
	if o != nil && o.forgotten {
		return make()
	}
	if s := r.findLocked(f, labels); s != nil {
		return s.handle
	}
	for _, l := range labels {
		mustLabelName(f.name, l.Name)
	}
	if len(f.series) >= r.maxSeries {
		r.overflowLocked(f)
		// The overflow series is one above the limit, so that it always has room.
		labels = slices.Clone(labels)
		for i := range labels {
			labels[i].Value = Other
		}
		s := r.findLocked(f, labels)
		if s == nil {
			s = f.add(labels, make())
		}
		s.shared = true
		return s.handle
	}
	s := f.add(labels, make())
	if o != nil {
		o.made = append(o.made, made{f, s})
	}
	return s.handle
}

func (f *family) add(labels []Label, handle any) *series {
	s := &series{labels: string(appendLabels(nil, labels)), handle: handle}
	f.series[s.labels] = s
	f.list = append(f.list, s)
	return s
}

// overflowLocked counts one refusal of f. The counter's own family has one series per family and so cannot overflow: it is
// kept out of the limit.
func (r *Registry) overflowLocked(f *family) { r.overflowCounterLocked(f.short).Inc() }

func (r *Registry) overflowCounterLocked(short string) *Counter {
	f := r.familyLocked(MetricOverflow, counterKind)
	labels := []Label{{"metric", short}}
	if s := r.findLocked(f, labels); s != nil {
		return s.handle.(*Counter)
	}
	return f.add(labels, new(Counter)).handle.(*Counter)
}

func mustBounds(name string, bounds []float64) []float64 {
	if n := len(bounds); n > 0 && math.IsInf(bounds[n-1], +1) {
		bounds = bounds[:n-1]
	}
	if err := metrics.ValidateBuckets(bounds); err != nil {
		panic(fmt.Sprintf("meter: %s: %v", name, err))
	}
	return slices.Clone(bounds)
}

func mustLabelName(metric, name string) {
	if !validName(name, false) || strings.HasPrefix(name, "__") || name == "le" {
		panic(fmt.Sprintf("meter: %q is not a label name (metric %s)", name, metric))
	}
}

// validName tells whether s is a metric name (colon allowed) or a label name of the exposition format.
func validName(s string, colon bool) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case c >= '0' && c <= '9' && i > 0:
		case c == ':' && colon:
		default:
			return false
		}
	}
	return s != ""
}
