package meter

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/VictoriaMetrics/metrics"
)

// ContentType of what Write writes, as the contract's endpoint sends it.
const ContentType = "text/plain; charset=utf-8"

// Write writes the exposition: the families of the registry sorted by name, each with HELP and TYPE (also those without a series
// yet), then the metrics of the Go runtime and of the process. It holds no lock while it writes or calls back, so that a slow reader
// delays nobody, and returns the first error of w.
func (r *Registry) Write(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 64<<10) // keeps the first error, writes nothing after it
	r.set.WritePrometheus(buffered)
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("writing metrics: %w", err)
	}
	return nil
}

// exposed is a family as it was when the exposition began.
type exposed struct {
	*family
	help    string
	series  []*series
	collect func(Emit)
	names   []string
	epoch   uint64
}

func (r *Registry) writeFamilies(w io.Writer) {
	buf := make([]byte, 0, 4<<10)
	for _, f := range r.exposed() {
		buf = appendHeader(buf[:0], f.name, f.help, f.kind.String())
		for _, s := range f.series {
			buf = appendSeries(buf, f.name, s)
			if len(buf) > 3<<10 {
				w.Write(buf)
				buf = buf[:0]
			}
		}
		if f.collect != nil {
			buf = r.appendCollected(buf, f)
		}
		w.Write(buf)
	}
}

// exposed takes what the exposition needs under the lock, and sorts after it: requests that meet a new combination of labels
// wait for that lock.
func (r *Registry) exposed() []exposed {
	list, stale := r.copyFamilies()
	for _, i := range stale {
		f := &list[i]
		f.series = slices.Clone(f.series)
		slices.SortFunc(f.series, func(a, b *series) int { return strings.Compare(a.labels, b.labels) })
	}
	r.keepSorted(list, stale)
	slices.SortFunc(list, func(a, b exposed) int { return strings.Compare(a.name, b.name) })
	return list
}

// keepSorted keeps what was sorted for the next exposition, unless series of it were forgotten meanwhile.
func (r *Registry) keepSorted(list []exposed, stale []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range stale {
		if f := list[i]; f.epoch == f.family.epoch && len(f.series) > len(f.sorted) {
			f.sorted = f.series
		}
	}
}

// copyFamilies returns all families in any order, and the indexes of those whose series are still to be sorted.
func (r *Registry) copyFamilies() (list []exposed, stale []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		e := exposed{family: f, help: f.help, series: f.sorted, collect: f.collect, names: f.names, epoch: f.epoch}
		if len(f.sorted) < len(f.list) {
			e.series = f.list
			stale = append(stale, len(list))
		}
		list = append(list, e)
	}
	return list, stale
}

func (r *Registry) appendCollected(dst []byte, f exposed) []byte {
	seen := make(map[string]struct{})
	for _, s := range f.series {
		seen[s.labels] = struct{}{}
	}
	labels := make([]Label, len(f.names))
	refused := 0
	f.collect(func(value float64, labelValues ...string) {
		for i, name := range f.names {
			labels[i] = Label{Name: name}
			if i < len(labelValues) {
				labels[i].Value = labelValues[i]
			}
		}
		rendered := string(appendLabels(nil, labels))
		if _, twice := seen[rendered]; twice {
			return
		}
		if len(seen) >= r.maxSeries {
			refused++
			return
		}
		seen[rendered] = struct{}{}
		dst = appendFloat(append(appendSample(dst, f.name, "", rendered, ""), ' '), value)
		dst = append(dst, '\n')
	})
	if refused > 0 {
		r.mu.Lock()
		r.overflowCounterLocked(f.short).Add(int64(refused))
		r.mu.Unlock()
	}
	return dst
}

func appendHeader(dst []byte, name, help, typ string) []byte {
	if help != "" {
		dst = append(append(append(dst, "# HELP "...), name...), ' ')
		for i := 0; i < len(help); i++ {
			switch help[i] {
			case '\\':
				dst = append(dst, `\\`...)
			case '\n':
				dst = append(dst, `\n`...)
			default:
				dst = append(dst, help[i])
			}
		}
		dst = append(dst, '\n')
	}
	dst = append(append(append(dst, "# TYPE "...), name...), ' ')
	return append(append(dst, typ...), '\n')
}

func appendSeries(dst []byte, name string, s *series) []byte {
	switch h := s.handle.(type) {
	case *Counter:
		dst = append(appendSample(dst, name, "", s.labels, ""), ' ')
		dst = append(strconv.AppendUint(dst, h.Value(), 10), '\n')
	case *Gauge:
		dst = append(appendSample(dst, name, "", s.labels, ""), ' ')
		dst = append(appendFloat(dst, h.Value()), '\n')
	case *Histogram:
		dst = appendHistogram(dst, name, s.labels, h)
	}
	return dst
}

// appendHistogram derives the count from the buckets that it has just read, so that le="+Inf" equals _count and no bucket is
// smaller than the one before it while others observe.
func appendHistogram(dst []byte, name, labels string, h *Histogram) []byte {
	sum := h.Sum()
	var total uint64
	var le [32]byte
	for i := range h.counts {
		total += h.counts[i].Load()
		bound := append(le[:0], "+Inf"...)
		if i < len(h.bounds) {
			bound = appendFloat(le[:0], h.bounds[i])
		}
		dst = append(appendSample(dst, name, "_bucket", labels, string(bound)), ' ')
		dst = append(strconv.AppendUint(dst, total, 10), '\n')
	}
	dst = append(appendSample(dst, name, "_sum", labels, ""), ' ')
	dst = append(appendFloat(dst, sum), '\n')
	dst = append(appendSample(dst, name, "_count", labels, ""), ' ')
	return append(strconv.AppendUint(dst, total, 10), '\n')
}

// appendSample appends everything of a line that stands before its value; le is the last label of a bucket.
func appendSample(dst []byte, name, suffix, labels, le string) []byte {
	dst = append(append(dst, name...), suffix...)
	if labels == "" && le == "" {
		return dst
	}
	dst = append(append(dst, '{'), labels...)
	if le != "" {
		if labels != "" {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, `le="`...), le...), '"')
	}
	return append(dst, '}')
}

// appendFloat writes plain decimals for all ordinary values (60000, not 6e+04) and NaN, +Inf, -Inf as the format has them.
func appendFloat(dst []byte, v float64) []byte {
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e18) {
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

func appendLabels(dst []byte, labels []Label) []byte {
	for i, l := range labels {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, l.Name...), `="`...)
		dst = append(appendValue(dst, l.Value), '"')
	}
	return dst
}

// appendValue escapes a label value. Invalid UTF-8 and NUL make scrapers refuse the whole exposition, so they are replaced.
func appendValue(dst []byte, v string) []byte {
	for i := 0; i < len(v); {
		c := v[i]
		size := 1
		switch {
		case c == '\\':
			dst = append(dst, `\\`...)
		case c == '"':
			dst = append(dst, `\"`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == 0:
			dst = utf8.AppendRune(dst, utf8.RuneError)
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			var ch rune
			ch, size = utf8.DecodeRuneInString(v[i:])
			dst = utf8.AppendRune(dst, ch)
		}
		i += size
	}
	return dst
}

// writeProcess writes the library's runtime and process metrics with a TYPE line for each family. The library would write
// metadata only after a switch that is global to the process.
func writeProcess(w io.Writer) {
	var text bytes.Buffer
	metrics.WriteGoMetrics(&text)
	metrics.WriteProcMetrics(&text)
	metrics.WriteFDMetrics(&text)
	last := ""
	for line := range bytes.Lines(text.Bytes()) {
		name := string(line[:max(bytes.IndexAny(line, "{ "), 0)])
		family, typ := processFamily(name)
		if family != last {
			w.Write(appendHeader(nil, family, "", typ))
			last = family
		}
		w.Write(line)
	}
}

// processFamily derives family and type from a sample name. The library's histograms have no sum, and its one summary has no
// _bucket: both are told apart by their names.
func processFamily(sample string) (family, typ string) {
	if base, ok := strings.CutSuffix(sample, "_bucket"); ok {
		return base, "histogram"
	}
	const pauses = "go_gc_duration_seconds"
	if strings.HasPrefix(sample, pauses) {
		return pauses, "summary"
	}
	if strings.HasSuffix(sample, "_total") {
		return sample, "counter"
	}
	return sample, "gauge"
}
