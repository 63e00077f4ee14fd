package meter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestExposition(t *testing.T) {
	r := New("")
	r.Counter("requests_seen_total", Label{"b", "1"}, Label{"a", "2"}).Add(3)
	r.Counter("plain_total").Inc()
	r.Describe("plain_total", "A \\ and a\nnewline.")
	r.Gauge("temperature", func() float64 { return -1.5 })
	r.Gauge("level", nil, Label{"tank", "x"}).Set(1000000)
	h := r.Histogram("size", []float64{1, 2.5, 60000, math.Inf(1)}, Label{"k", "v"})
	for _, v := range []float64{0.5, 1, 2, 60000, 60000.5, -1, math.NaN()} {
		h.Observe(v)
	}
	e, text := scrape(t, r)
	wantSamples(t, e, map[string]string{
		`apisix_requests_seen_total{b="1",a="2"}`: "3", // order as given
		`apisix_plain_total`:                      "1",
		`apisix_temperature`:                      "-1.5",
		`apisix_level{tank="x"}`:                  "1000000",
		`apisix_size_bucket{k="v",le="1"}`:        "2",
		`apisix_size_bucket{k="v",le="2.5"}`:      "3",
		`apisix_size_bucket{k="v",le="60000"}`:    "4",
		`apisix_size_bucket{k="v",le="+Inf"}`:     "5",
		`apisix_size_sum{k="v"}`:                  "120004",
		`apisix_size_count{k="v"}`:                "5",
	})
	if want := "# HELP apisix_plain_total A \\\\ and a\\nnewline.\n# TYPE apisix_plain_total counter\napisix_plain_total 1\n"; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
	if e.types["apisix_size"] != "histogram" || e.types["apisix_level"] != "gauge" {
		t.Errorf("types: %v", e.types)
	}
}

func TestEveryKnownFamilyIsAnnouncedAndSorted(t *testing.T) {
	e, text := scrape(t, New("x_"))
	for _, d := range known() {
		full := "x_" + d.name
		if strings.HasPrefix(d.name, "headgate_") {
			full = d.name
		}
		if e.types[full] != d.kind.String() || e.helps[full] == "" {
			t.Errorf("%s: type %q, help %q", full, e.types[full], e.helps[full])
		}
	}
	var own []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			own = append(own, rest)
		}
	}
	if !slices.IsSorted(own) || len(own) != len(known()) {
		t.Errorf("families: %q", own)
	}
}

func TestProcessMetrics(t *testing.T) {
	e, _ := scrape(t, New(""))
	for name, typ := range map[string]string{
		"process_resident_memory_bytes": "gauge",
		"process_cpu_seconds_total":     "counter",
		"process_open_fds":              "gauge",
		"go_goroutines":                 "gauge",
		"go_gc_duration_seconds":        "summary",
		"go_sched_latencies_seconds":    "histogram",
	} {
		if e.types[name] != typ {
			t.Errorf("%s: type %q, want %q", name, e.types[name], typ)
		}
	}
	if v := e.samples["process_resident_memory_bytes"]; v == "" || v == "0" {
		t.Errorf("process_resident_memory_bytes = %q", v)
	}
}

func TestSameLabelsSameHandle(t *testing.T) {
	r := New("")
	if first, second := r.Branch("1", "v1"), r.Branch("1", "v1"); first != second {
		t.Error("two counters for one branch")
	}
	if r.Branch("1", "v1") == r.Branch("1", "v2") {
		t.Error("one counter for two branches")
	}
	// Values that look like a border between labels must not make two series one.
	a := r.Counter("c", Label{"a", `x",b="y`})
	b := r.Counter("c", Label{"a", "x"}, Label{"b", "y"})
	if a == b {
		t.Error("a label value broke out of its quotes")
	}
	if r.Histogram("h", []float64{1}) != r.Histogram("h", []float64{1, 2}) {
		t.Error("later buckets made another histogram")
	}
	r.Gauge("g", func() float64 { return 1 })
	if got := r.Gauge("g", func() float64 { return 2 }).Value(); got != 2 {
		t.Errorf("gauge = %v after a reload, want the latest callback's 2", got)
	}
	g := r.Gauge("g", nil)
	g.Set(5)
	g.Add(-2)
	if got := g.Value(); got != 3 {
		t.Errorf("settable gauge = %v, want 3", got)
	}
}

func TestSeriesLimit(t *testing.T) {
	r := NewWith(Options{MaxSeries: 2})
	for i := range 5 {
		r.Counter("hits", Label{"who", fmt.Sprint(i)}, Label{"how", "x"}).Inc()
		r.Histogram("times", []float64{1}, Label{"who", fmt.Sprint(i)}).Observe(1)
		r.Gauge("level", func() float64 { return 7 }, Label{"who", fmt.Sprint(i)})
	}
	r.Counter("hits", Label{"who", "0"}, Label{"how", "x"}).Inc() // has its series already
	e, text := scrape(t, r)
	wantSamples(t, e, map[string]string{
		`apisix_hits{who="0",how="x"}`:                 "2",
		`apisix_hits{who="1",how="x"}`:                 "1",
		`apisix_hits{who="other",how="other"}`:         "3",
		`apisix_times_count{who="other"}`:              "3",
		`apisix_metric_overflow_total{metric="hits"}`:  "3",
		`apisix_metric_overflow_total{metric="times"}`: "3",
		`apisix_metric_overflow_total{metric="level"}`: "3",
	})
	if n := strings.Count(text, "\napisix_level{"); n != 2 {
		t.Errorf("%d gauges, want the 2 that fit and no sum of the others", n)
	}
}

func TestCollect(t *testing.T) {
	r := NewWith(Options{MaxSeries: 3})
	nodes := []string{"10.0.0.1", "10.0.0.2"}
	report := func(emit Emit) {
		for _, n := range nodes {
			emit(1, "/apisix/routes/1", n, "80")
		}
		emit(0, "/apisix/routes/1", nodes[0], "80") // the first report counts
		emit(1, "short")
	}
	r.Collect(UpstreamStatus, []string{"name", "ip", "port"}, report)
	e, _ := scrape(t, r)
	wantSamples(t, e, map[string]string{
		`apisix_upstream_status{name="/apisix/routes/1",ip="10.0.0.1",port="80"}`: "1",
		`apisix_upstream_status{name="/apisix/routes/1",ip="10.0.0.2",port="80"}`: "1",
		`apisix_upstream_status{name="short",ip="",port=""}`:                      "1",
	})
	nodes = []string{"10.0.0.3", "10.0.0.4", "10.0.0.5"}
	e, text := scrape(t, r)
	if strings.Contains(text, "10.0.0.1") || strings.Contains(text, `"short"`) {
		t.Error("what is no longer reported, or has no room, is still shown")
	}
	wantSamples(t, e, map[string]string{`apisix_upstream_status{name="/apisix/routes/1",ip="10.0.0.5",port="80"}`: "1"})
	e, _ = scrape(t, r) // shows what the scrape before it refused
	wantSamples(t, e, map[string]string{`apisix_metric_overflow_total{metric="upstream_status"}`: "1"})
}

func TestMistakesPanic(t *testing.T) {
	r := New("")
	r.Counter("c")
	for name, f := range map[string]func(){
		"other type":     func() { r.Gauge("c", nil) },
		"metric name":    func() { r.Counter("a-b") },
		"label name":     func() { r.Counter("d", Label{"a b", "x"}) },
		"label le":       func() { r.Histogram("e", []float64{1}, Label{"le", "x"}) },
		"label __":       func() { r.Collect("f", []string{"__name__"}, func(Emit) {}) },
		"bucket order":   func() { r.Histogram("g", []float64{2, 1}) },
		"empty buckets":  func() { r.Histogram("h", nil) },
		"latency bounds": func() { NewWith(Options{LatencyBuckets: []float64{1, 1}}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
	r.Counter("still_usable").Inc() // the lock was released
}

type brokenWriter struct{ left int }

var errBroken = errors.New("peer is gone")

func (b *brokenWriter) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errBroken
	}
	b.left -= len(p)
	return len(p), nil
}

func TestWriteReportsError(t *testing.T) {
	if err := New("").Write(&brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("error = %v", err)
	}
}

func TestConcurrentRegistrationAndScrape(t *testing.T) {
	r := New("")
	var wg sync.WaitGroup
	const workers, rounds = 8, 300
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				r.Counter("c", Label{"i", fmt.Sprint(i % 7)}).Inc()
				r.Histogram("h", []float64{1, 2}).Observe(float64(w % 3))
				if i%100 == 0 {
					scrape(t, r)
				}
			}
		})
	}
	wg.Wait()
	var total uint64
	for i := range 7 {
		total += r.Counter("c", Label{"i", fmt.Sprint(i)}).Value()
	}
	if h := r.Histogram("h", nil); total != workers*rounds || h.Count() != workers*rounds || h.Sum() != rounds*(3*0+3*1+2*2) {
		t.Errorf("counter %d, histogram %d with sum %v", total, h.Count(), h.Sum())
	}
}

func TestHandlesDoNotAllocate(t *testing.T) {
	r := New("")
	c, g, h := r.Counter("c"), r.Gauge("g", nil), r.Histogram("h", LatencyBuckets())
	if n := testing.AllocsPerRun(100, func() { c.Inc(); c.Add(2); g.Set(1); g.Add(1); h.Observe(70) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	c.Add(-5)
	if c.Value() != 303 {
		t.Errorf("counter = %d, want 303: a negative Add is ignored", c.Value())
	}
}

func FuzzLabelValue(f *testing.F) {
	for _, s := range []string{"", "plain", `a"b`, `back\slash`, "new\nline", `\n`, `\`, "\x00", "\xff\xfe", "é日本", `x",b="y`, "}{ 1\n# TYPE"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		line := string(appendSample(nil, "m", "", string(appendLabels(nil, []Label{{"a", value}, {"b", "end"}})), "")) + " 1"
		if strings.Contains(line, "\n") || !utf8.ValidString(line) {
			t.Fatalf("%q breaks the line", line)
		}
		_, labels, _, err := parseSample(line)
		if err != nil {
			t.Fatal(err)
		}
		// Reading back what the format can carry gives the value; the rest is replaced rune by rune.
		want := strings.Map(func(c rune) rune {
			if c == 0 {
				return utf8.RuneError
			}
			return c
		}, value)
		if len(labels) != 2 || labels[0].Value != want || labels[1].Value != "end" {
			t.Errorf("read back %q, want %q", labels, want)
		}
	})
}
