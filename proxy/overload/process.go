package overload

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// softShare is how much of the limit the runtime is told to stay below, in percent: it collects garbage more often then, and gives memory
// back to the system.
const softShare = 90

// limitEnv is how operators tell the runtime by themselves.
const limitEnv = "GOMEMLIMIT"

// Tell tells the runtime of a limit in bytes, unless GOMEMLIMIT does. 0 = none.
func Tell(limit int64) {
	if limit > 0 && os.Getenv(limitEnv) == "" {
		debug.SetMemoryLimit(limit / 100 * softShare)
	}
}

// Process is the Source that measures this process.
type Process struct {
	samples [3]metrics.Sample
	statm   *os.File // nil where there is none
	page    int64
	text    [64]byte
}

// NewProcess returns a Process. The caller closes it.
func NewProcess() *Process {
	p := &Process{page: int64(os.Getpagesize())}
	for i, name := range [...]string{"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes"} {
		p.samples[i].Name = name
	}
	p.statm, _ = os.Open("/proc/self/statm") // without it, what the runtime knows of has to do
	return p
}

// Close frees what it takes to measure.
func (p *Process) Close() {
	if p.statm != nil {
		_ = p.statm.Close()
	}
}

// Used implements Source: what is resident, or what the runtime has mapped, whichever is more, but for what the runtime keeps ready for
// the next allocations.
func (p *Process) Used() int64 {
	metrics.Read(p.samples[:])
	bytes := func(i int) int64 {
		if p.samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return int64(p.samples[i].Value.Uint64())
	}
	mapped, free := bytes(0)-bytes(1), bytes(2)
	return max(mapped, p.resident()) - free
}

// resident is the second number of statm(5), in bytes; 0 when it cannot be read.
func (p *Process) resident() (n int64) {
	if p.statm == nil {
		return 0
	}
	got, _ := p.statm.ReadAt(p.text[:], 0)
	field := 0
	for _, c := range p.text[:got] {
		switch {
		case c == ' ':
			field++
		case field == 1:
			n = n*10 + int64(c-'0')
		}
	}
	return n * p.page
}

// Collect implements Source.
func (p *Process) Collect() { runtime.GC() }
