package proxycache

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headgate/proxy/meter"
)

// Zone is a place to keep answers in (contract section 6, apisix.proxy_cache.zones).
type Zone struct {
	// Name is what cache_zone says.
	Name string
	// Memory bounds the bytes of answers in memory; for a zone on disk, those of what is known about its files.
	Memory int64
	// Path is the directory of a zone on disk, "" for one in memory. It is made when the first answer is written. Files in it that are not
	// of a cache are left alone.
	Path string
	// Disk bounds the bytes of the files.
	Disk int64
	// Levels are the lengths of the names of directories between Path and the files: 1, 2 for d/8c/<name>.
	Levels []int
}

// Options is what the plugin needs of the process.
type Options struct {
	Zones []Zone
	// TTL is for how long an answer on disk is fresh that does not say so itself.
	TTL time.Duration
	// Background runs task soon, on one of a bounded number of goroutines; false says that all are busy and task will not run. Without it
	// nothing is written to disk.
	Background func(task func()) bool
	// Meter counts; nil does not.
	Meter *meter.Registry
	// Logf tells the operator what is wrong with a disk. May be nil.
	Logf func(format string, args ...any)
}

// DefaultZones are those of the contract's default configuration, but for the place of the files.
func DefaultZones() []Zone {
	return []Zone{
		{Name: "disk_cache_one", Memory: 50 << 20, Disk: 1 << 30, Path: "data/cache/disk_cache_one", Levels: []int{1, 2}},
		{Name: "memory_cache", Memory: 50 << 20},
	}
}

// Cache has the zones of the process. It outlives configurations: what is in it stays when a route is edited.
type Cache struct {
	zones  map[string]*zone
	ttl    time.Duration
	visits sync.Pool // *visit
	work   sync.WaitGroup
	stop   chan struct{}
	once   sync.Once
}

// New makes the zones, without touching a disk.
func New(o Options) *Cache {
	c := &Cache{zones: map[string]*zone{}, ttl: o.TTL, stop: make(chan struct{})}
	for _, z := range o.Zones {
		c.zones[z.Name] = newZone(z, &o)
	}
	return c
}

// Start begins to look through the directories of the zones on disk for what an earlier process has kept. Until a file was seen, its
// answer is a miss.
func (c *Cache) Start() {
	for _, z := range c.zones {
		if z.disk != nil {
			c.work.Go(func() { z.scan(c.stop) })
		}
	}
}

// Close ends what Start began. What is on disk stays.
func (c *Cache) Close() {
	c.once.Do(func() { close(c.stop) })
	c.work.Wait()
}

// maxRecording bounds the bytes of all bodies of a zone that are being kept and are not there yet. Answers beyond it pass without.
const maxRecording = 256 << 20

// zone is a Zone at work.
type zone struct {
	Zone
	index
	disk       *disk // nil for one in memory
	recording  atomic.Int64
	background func(task func()) bool
	logf       func(format string, args ...any)
	failing    atomic.Bool // the last write to the disk has failed
	counters
}

// counters are those of a zone.
type counters struct {
	requests [statuses]*meter.Counter
	served   *meter.Counter
	lost     *meter.Counter
	evicted  *meter.Counter
}

// Names of the metrics. Each has the label zone.
const (
	metricRequests = meter.OwnPrefix + "cache_requests_total"
	metricServed   = meter.OwnPrefix + "cache_served_bytes_total"
	metricLost     = meter.OwnPrefix + "cache_write_failures_total"
	metricEvicted  = meter.OwnPrefix + "cache_evictions_total"
	metricBytes    = meter.OwnPrefix + "cache_bytes"
	metricEntries  = meter.OwnPrefix + "cache_entries"
)

func newZone(z Zone, o *Options) *zone {
	out := &zone{Zone: z, background: o.Background, logf: o.Logf}
	out.index.maxMemory = z.Memory
	if z.Path != "" {
		out.index.maxDisk = z.Disk
		out.disk = &disk{root: z.Path, levels: z.Levels}
	}
	out.index.init()
	if out.logf == nil {
		out.logf = func(string, ...any) {}
	}
	m := o.Meter
	if m == nil {
		m = meter.New("")
	}
	out.count(m)
	out.index.evicted = func(n int) { out.counters.evicted.Add(int64(n)) }
	return out
}

func (z *zone) count(m *meter.Registry) {
	zone := meter.Label{Name: "zone", Value: z.Name}
	for s := range z.requests {
		if text := status(s).text(); text != nil {
			z.requests[s] = m.Counter(metricRequests, zone, meter.Label{Name: "status", Value: strings.ToLower(string(text))})
		}
	}
	z.served, z.lost, z.counters.evicted = m.Counter(metricServed, zone), m.Counter(metricLost, zone), m.Counter(metricEvicted, zone)
	m.Gauge(metricBytes, func() float64 { return float64(z.index.memory.Load()) }, zone, meter.Label{Name: "where", Value: "memory"})
	if z.disk != nil {
		m.Gauge(metricBytes, func() float64 { return float64(z.index.disk.Load()) }, zone, meter.Label{Name: "where", Value: "disk"})
	}
	m.Gauge(metricEntries, func() float64 { return float64(z.index.number.Load()) }, zone)
	for name, help := range map[string]string{
		metricRequests: "Requests that proxy-cache looked up, by what came of it: hit, miss, expired, stale, bypass.",
		metricServed:   "Bytes of bodies that came from the cache.",
		metricLost:     "Answers that should have been written to the disk and were not: no worker was free, or the disk did not take them.",
		metricEvicted:  "Answers that had to go to make room for others.",
		metricBytes:    "Bytes that kept answers take, in memory and on the disk.",
		metricEntries:  "Answers that are kept.",
	} {
		m.Describe(name, help)
	}
}

// reserve takes n bytes of what may be recorded at a time; false says that there are not so many left.
func (z *zone) reserve(n int64) bool {
	if z.recording.Add(n) > min(maxRecording, max(z.Memory, z.Disk)) {
		z.recording.Add(-n)
		return false
	}
	return true
}

// keep takes e with its body in; reserved bytes are given back when that is done.
func (z *zone) keep(e *entry, ticket uint64, reserved int64) {
	if z.disk == nil {
		z.index.add(e, ticket)
		z.recording.Add(-reserved)
		return
	}
	body := e.body
	e.body = nil
	write := func() {
		defer z.recording.Add(-reserved)
		err := z.disk.write(e, body)
		if z.failing.Swap(err != nil) != (err != nil) {
			if err != nil {
				z.logf("cache zone %s: nothing can be written to %s: %v", z.Name, z.Path, err)
			} else {
				z.logf("cache zone %s: %s can be written to again", z.Name, z.Path)
			}
		}
		if err != nil {
			z.lost.Inc()
			return
		}
		removed, ok := z.index.add(e, ticket)
		if !ok {
			removed = append(removed, e)
		}
		z.unlink(removed)
	}
	if z.background == nil || !z.background(write) {
		z.recording.Add(-reserved)
		z.lost.Inc()
	}
}

// purge takes out all answers to key and says whether there was one. Their files go in the background where that is possible; they must go,
// or a restart would bring them back.
func (z *zone) purge(key *digest) bool {
	removed := z.index.purge(key)
	if z.disk != nil && len(removed) > 0 {
		if task := func() { z.unlink(removed) }; z.background == nil || !z.background(task) {
			task()
		}
	}
	return len(removed) > 0
}

func (z *zone) unlink(removed []*entry) {
	if z.disk == nil {
		return
	}
	for _, e := range removed {
		z.disk.remove(e)
	}
}

// broken takes out e, whose file is not what it should be.
func (z *zone) broken(e *entry) {
	if z.index.drop(e) {
		z.unlink([]*entry{e})
	}
}

// scan takes in what is on the disk.
func (z *zone) scan(stop <-chan struct{}) {
	err := z.disk.scan(stop, func(e *entry) {
		removed, ok := z.index.restore(e)
		if !ok {
			removed = append(removed, e)
		}
		z.unlink(removed)
	})
	if err != nil && !errors.Is(err, errStopped) {
		z.logf("cache zone %s: %v", z.Name, err)
	}
}
