package overload

import (
	"runtime/debug"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// fake is memory of which a test says what is in use and what of that is garbage.
type fake struct {
	live, garbage int64
	collections   int
}

func (f *fake) Used() int64 { return f.live + f.garbage }

func (f *fake) Collect() {
	f.garbage = 0
	f.collections++
}

// watched is a monitor of a fake, with a clock that only the test moves.
func watched(f *fake) (m *Monitor, pass func(time.Duration)) {
	at := time.Unix(1000, 0)
	m = New(1000, f)
	m.now = func() time.Time { return at }
	return m, func(d time.Duration) { at = at.Add(d) }
}

func TestLevels(t *testing.T) {
	f := &fake{}
	m, pass := watched(f)
	for i, step := range []struct {
		live, garbage int64
		want          Level
	}{
		{840, 0, Calm}, {850, 0, Tight}, {840, 0, Tight}, {800, 0, Tight}, {799, 0, Calm},
		{700, 200, Calm}, // garbage
		{949, 0, Tight}, {950, 0, Full}, {900, 0, Full}, {899, 0, Tight}, {950, 0, Full}, {500, 0, Calm},
		{2000, 0, Full}, {700, 400, Calm}, {0, 0, Calm},
	} {
		f.live, f.garbage = step.live, step.garbage
		pass(collectEvery)
		before := m.Level()
		was, now := m.look()
		if was != before || now != step.want || m.Level() != now {
			t.Errorf("step %d, %d and %d in use: from %v to %v, want %v", i, step.live, step.garbage, was, now, step.want)
		}
		if m.Used() != f.Used() {
			t.Errorf("step %d: %d in use, want %d", i, m.Used(), f.Used())
		}
	}
}

// Collecting is dear: it is done when something depends on it, and not with every look.
func TestCollections(t *testing.T) {
	f := &fake{live: 100, garbage: 700}
	m, pass := watched(f)
	pass(time.Hour)
	m.look()
	if f.collections != 0 {
		t.Fatal("collected while calm")
	}
	f.garbage = 800
	m.look()
	f.garbage = 800
	for range 5 { // within the second nothing is certain, so nothing changes
		if _, now := m.look(); now != Calm {
			t.Error(now)
		}
	}
	if f.collections != 1 {
		t.Errorf("%d collections", f.collections)
	}
	f.garbage = 860 // too near to wait
	if _, now := m.look(); now != Full || f.collections != 1 {
		t.Errorf("%v, %d collections", now, f.collections)
	}
	pass(collectEvery)
	if _, now := m.look(); now != Calm || f.collections != 2 {
		t.Errorf("%v, %d collections", now, f.collections)
	}
}

func TestTake(t *testing.T) {
	f := &fake{live: 500, garbage: 300}
	m, pass := watched(f)
	pass(time.Hour)
	m.look()
	if !m.Take(100, false) || !m.Take(50, false) || f.collections != 0 {
		t.Error("there was room")
	}
	if !m.Take(100, false) || f.collections != 1 { // 650 of 950 are in use when the garbage is gone
		t.Errorf("there was garbage; %d collections", f.collections)
	}
	if m.Take(351, false) || !m.Take(350, false) || m.Take(1, false) || f.collections != 1 {
		t.Errorf("there is room for 350; %d collections", f.collections)
	}
	f.live = 940
	pass(askEvery)
	if m.Take(11, false) || !m.Take(10, false) || f.collections != 2 {
		t.Errorf("there is room for 10; %d collections", f.collections)
	}
	f.live = 100
	m.look()
	if m.Take(751, true) || !m.Take(700, true) || m.Take(51, true) || !m.Take(150, false) {
		t.Error("the next look finds what was taken, and no more; what is large leaves a tenth to others")
	}
}

func TestTakeAtOnce(t *testing.T) {
	m, _ := watched(&fake{live: 500})
	m.look()
	m.collected = m.now() // nobody measures again
	var all sync.WaitGroup
	var got [8]int
	for i := range got {
		all.Go(func() {
			for range 100 {
				if m.Take(1, false) {
					got[i]++
				}
			}
		})
	}
	all.Wait()
	sum := 0
	for _, n := range got {
		sum += n
	}
	if sum != 450 {
		t.Errorf("%d of 450 were taken", sum)
	}
}

func TestNobodyLimits(t *testing.T) {
	m := New(0, nil)
	if m != nil || m.Level() != Calm || !m.Take(1<<60, false) || m.Limit() != 0 || m.Used() != 0 {
		t.Error("there is a limit")
	}
	m.Start(nil)
	m.Stop()
}

func TestStart(t *testing.T) {
	m, _ := watched(&fake{live: 990})
	told := make(chan [2]Level)
	end := make(chan struct{})
	m.Start(func(before, now Level) {
		select {
		case told <- [2]Level{before, now}:
		case <-end:
		}
	})
	if got := <-told; got != [2]Level{Calm, Full} {
		t.Error(got)
	}
	if got := <-told; got != [2]Level{Full, Full} {
		t.Error(got)
	}
	close(end)
	m.Stop()
	m.Stop()
}

func TestAllocRequestPath(t *testing.T) {
	m, _ := watched(&fake{live: 100})
	m.look()
	if n := testing.AllocsPerRun(100, func() {
		if m.Level() != Calm || !m.Take(1, false) {
			t.Error("not calm")
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// TestProcess: what is allocated shows, and is gone when it is garbage.
func TestProcess(t *testing.T) {
	earlier := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(earlier)
	const limit = 1 << 40
	p := NewProcess(limit)
	defer p.Close()
	if own, files := p.resident(); own < 1<<20 || files < 1<<20 || files > maxMapped {
		t.Errorf("%d bytes are resident, and %d of files", own, files)
	}
	if told := debug.SetMemoryLimit(-1); told > limit/100*softShare || told < limit/100*softShare-maxMapped {
		t.Errorf("the runtime is told of %d bytes", told)
	}
	p.Collect()
	before := p.Used()
	held := make([]byte, 64<<20)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1
	}
	with := p.Used()
	if with < before+60<<20 || with > before+100<<20 && !raceEnabled { // the race detector has memory of its own
		t.Errorf("%d MiB before, %d MiB with 64 MiB more", before>>20, with>>20)
	}
	held[0] = held[1]
	held = nil
	p.Collect()
	if after := p.Used(); after > with-60<<20 {
		t.Errorf("%d MiB with and %d MiB without 64 MiB", with>>20, after>>20)
	}
	if n := testing.AllocsPerRun(20, func() { p.Used() }); n != 0 && !raceEnabled {
		t.Errorf("a look allocates %v times", n)
	}
}

func TestGroupLimit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no groups", nil, 0},
		{"v2", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1048576\n"}, 1 << 20},
		{"v2, without", map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		{"v2, around", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "4096\n"}, 4096},
		{"v2, the least", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "8192\n", "sys/fs/cgroup/a/memory.max": "4096\n"}, 4096},
		{"v2, container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096},
		{"v1", map[string]string{"proc/self/cgroup": "5:cpu:/x\n4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4096\n"}, 4096},
		{"v1, without", map[string]string{"proc/self/cgroup": "4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		{"v1, container", map[string]string{"proc/self/cgroup": "4:cpu,memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "4096\n"}, 4096},
		{"not one of ours", map[string]string{"proc/self/cgroup": "nonsense\n0:memory\n", "sys/fs/cgroup/memory.max": "4096\n"}, 0},
		{"out of bounds", map[string]string{"proc/self/cgroup": "0::/../../etc\n", "sys/fs/cgroup/etc/memory.max": "x\n"}, 0},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := groupLimit(root); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestFromEnv(t *testing.T) {
	for value, want := range map[string]int64{
		"": 0, "off": 0, "-1": 0, "0": 0, "900": 1000, "900B": 1000, "90MiB": (90 << 20) / 90 * 100, "1GiB": (1 << 30) / 90 * 100,
		"9MB": 0, "99999999TiB": 0, "1ZiB": 0, "GiB": 0,
	} {
		if got := fromEnv(value); got != want {
			t.Errorf("%q: %d, want %d", value, got, want)
		}
	}
}

func TestLimit(t *testing.T) {
	t.Setenv(limitEnv, "9KiB")
	if got, want := Limit(0), fromEnv("9KiB"); got != want {
		t.Errorf("from GOMEMLIMIT: %d, want %d", got, want)
	}
	if got := Limit(5000); got != 5000 {
		t.Errorf("from the settings: %d", got)
	}
	for _, tt := range [][3]int64{{0, 0, 0}, {1, 0, 1}, {0, 1, 1}, {1, 2, 1}, {2, 1, 1}} {
		if got := least(tt[0], tt[1]); got != tt[2] {
			t.Errorf("least of %d and %d: %d", tt[0], tt[1], got)
		}
	}
}
