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

// maxMapped bounds how much of what is mapped from files counts: the program itself, but not all of a store, of which the kernel takes back
// what it needs.
const maxMapped = 32 << 20

// Process is the Source that measures this process. It also tells the runtime of the limit.
type Process struct {
	soft    int64 // what the runtime's share is, mapped files included; 0 = GOMEMLIMIT says it
	told    int64 // mapped files when the runtime was told
	samples [3]metrics.Sample
	statm   *os.File // nil where there is none
	page    int64
	text    [64]byte
}

// NewProcess returns a Process that may have limit bytes. The caller closes it.
func NewProcess(limit int64) *Process {
	p := &Process{page: int64(os.Getpagesize())}
	if os.Getenv(limitEnv) == "" {
		p.soft = limit / 100 * softShare
	}
	for i, name := range [...]string{"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes"} {
		p.samples[i].Name = name
	}
	p.statm, _ = os.Open("/proc/self/statm") // without it, what the runtime knows of has to do
	_, p.told = p.resident()
	p.tell()
	return p
}

// Close frees what it takes to measure.
func (p *Process) Close() {
	if p.statm != nil {
		_ = p.statm.Close()
	}
}

// tell tells the runtime of its share: it knows nothing of mapped files.
func (p *Process) tell() {
	if p.soft > 0 {
		debug.SetMemoryLimit(max(p.soft-p.told, p.soft/2))
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
	own, files := p.resident()
	if files > p.told+toldAgain { // it stops the world, and the program is soon read
		p.told = files
		p.tell()
	}
	return max(mapped, own) + files - free
}

// toldAgain is by how much mapped files must have grown before the runtime is told.
const toldAgain = 2 << 20

// resident is how many bytes are, of the process's own and of files, by the second and third number of statm (proc_pid_statm(5)); 0 when
// that cannot be read.
func (p *Process) resident() (own, files int64) {
	if p.statm == nil {
		return 0, 0
	}
	got, _ := p.statm.ReadAt(p.text[:], 0)
	var n [4]int64
	field := 0
	for _, c := range p.text[:got] {
		switch {
		case c == ' ':
			if field++; field == len(n) {
				return (n[1] - n[2]) * p.page, min(n[2]*p.page, maxMapped)
			}
		case c >= '0' && c <= '9':
			n[field] = n[field]*10 + int64(c-'0')
		}
	}
	return 0, 0
}

// Collect implements Source.
func (p *Process) Collect() { runtime.GC() }
