package proxycache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/proxy/phase"
)

// files lists what is in a zone's directory.
func files(t testing.TB, root string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}

func diskZone(root string) Zone {
	return Zone{Name: "disk", Memory: 1 << 20, Disk: 1 << 20, Path: root, Levels: []int{1, 2}}
}

// restart gives the zone to another process, whose clock is that of the machine.
func restart(t testing.TB, z Zone) *rig {
	r := newRig(t, z)
	r.clock = time.Now()
	r.cache.Start()
	r.cache.work.Wait()
	return r
}

func TestRestart(t *testing.T) {
	root := filepath.Join(t.TempDir(), "deep", "cache")
	r := restart(t, diskZone(root)) // which is not there yet
	p := r.plugin("disk", "")
	long := strings.Repeat("x", 3*readSize+1)
	r.expect(p, "GET /a", says("a", "Cache-Control: max-age=1000", "ETag: \"e\"", "Vary: B"), "200 MISS a")
	r.expect(p, "GET /a|B: 1", says("a1", "Cache-Control: max-age=1000", "Vary: B"), "200 MISS a1")
	r.expect(p, "GET /long", says(long, "Cache-Control: max-age=1000"), "200 MISS "+long)
	r.expect(p, "GET /short", says("short", "Cache-Control: max-age=500"), "200 MISS short")
	r.expect(p, "GET /empty", says("", "Cache-Control: max-age=1000"), "200 MISS")
	list := files(t, root)
	if len(list) != 5 {
		t.Fatalf("files: %v", list)
	}
	for _, path := range list {
		info, err := os.Stat(path)
		rel, _ := filepath.Rel(root, path)
		parts := strings.Split(rel, "/")
		name := strings.Split(parts[len(parts)-1], ".")[0]
		if err != nil || info.Mode().Perm() != 0o600 || len(parts) != 3 || parts[0] != name[63:] || parts[1] != name[61:63] {
			t.Errorf("%s: %v %v", rel, info.Mode(), err)
		}
	}
	strange := filepath.Join(root, "notes.txt")
	if err := os.WriteFile(strange, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(root, temporary+"1")
	if err := os.WriteFile(old, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, time.Now().Add(-2*abandonedAfter), time.Now().Add(-2*abandonedAfter)); err != nil {
		t.Fatal(err)
	}

	r = restart(t, diskZone(root))
	r.clock = r.clock.Add(600 * time.Second)
	p = r.plugin("disk", "")
	r.expect(p, "GET /a", nil, "200 HIT a")
	r.expect(p, "GET /a|B: 1", nil, "200 HIT a1")
	r.expect(p, "GET /a|If-None-Match: \"e\"", nil, "304 HIT")
	r.expect(p, "GET /long", nil, "200 HIT "+long)
	r.expect(p, "GET /empty", nil, "200 HIT")
	r.expect(p, "GET /short", says("again"), "200 EXPIRED again")
	if _, err := os.Stat(strange); err != nil {
		t.Error("a file that is no cache's is gone")
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("a file that nobody will complete is still there")
	}
	// What was purged does not come back.
	r.expect(p, "PURGE /a", nil, "200")
	r = restart(t, diskZone(root))
	r.expect(r.plugin("disk", ""), "GET /a", says("new"), "200 MISS new")
}

// The look through the directory goes on while answers come and are purged.
func TestScanWhileAtWork(t *testing.T) {
	root := t.TempDir()
	r := restart(t, diskZone(root))
	p := r.plugin("disk", "")
	for i := range 3 {
		r.ask(p, fmt.Sprintf("GET /%d", i), says("old", "Cache-Control: max-age=1000"))
	}
	r = newRig(t, diskZone(root)) // which has not looked yet
	r.clock = time.Now()
	p = r.plugin("disk", "")
	r.ask(p, "PURGE /0", nil)
	r.expect(p, "GET /1", says("new", "Cache-Control: max-age=1000"), "200 MISS new")
	r.cache.Start()
	r.cache.work.Wait()
	z := r.cache.zones["disk"]
	z.scan(r.cache.stop) // what is known already is left as it is
	r.expect(p, "GET /1", nil, "200 HIT new")
	r.expect(p, "GET /2", nil, "200 HIT old")
	r.expect(p, "GET /0", says("newest"), "200 MISS newest")
	if n := z.number.Load(); n != 3 || len(files(t, root)) != 3 {
		t.Errorf("%d answers, files %v", n, files(t, root))
	}
	// A file that was seen before its answer was added is not taken for an older one.
	var kept *entry
	for i := range z.shards {
		for _, n := range z.shards[i].nodes {
			kept = n.entries[0]
		}
	}
	again := *kept
	if removed, ok := z.index.add(&again, z.shard(&kept.key).purges[kept.key[1]]); !ok || len(removed) != 0 {
		t.Errorf("removed %v, ok %v", removed, ok)
	}
}

// Of what is past its time when a process starts nothing is left, and a smaller bound holds at once.
func TestRestartCleans(t *testing.T) {
	root := t.TempDir()
	r := newRig(t, diskZone(root))
	p := r.plugin("disk", "")
	r.clock = time.Now().Add(-time.Hour)
	r.ask(p, "GET /past", says("past", "Cache-Control: max-age=3000"))
	r.clock = time.Now().Add(2 * clockSkew)
	r.ask(p, "GET /future", says("future", "Cache-Control: max-age=3000"))
	r.clock = time.Now()
	for i := range 20 {
		r.ask(p, fmt.Sprintf("GET /%d", i), says(strings.Repeat("x", 1000), "Cache-Control: max-age=1000"))
	}
	small := diskZone(root)
	small.Disk = 5000
	r = restart(t, small)
	var size int64
	for _, path := range files(t, root) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	p = r.plugin("disk", "")
	for _, path := range []string{"/past", "/future"} {
		r.expect(p, "GET "+path, says("new", "Cache-Control: private"), "200 MISS new")
	}
	if z := r.cache.zones["disk"]; size > 5000 || size < 2000 || z.index.disk.Load() != size {
		t.Errorf("%d bytes of files, %d counted", size, z.index.disk.Load())
	}
}

// A file that is not what was written is a miss, and it goes. A long body of which that is found out on the way is broken off.
func TestDamagedFiles(t *testing.T) {
	short, long := "short body", strings.Repeat("0123456789", readSize/4)
	for _, body := range []string{short, long} {
		for name, damage := range map[string]func(b []byte) []byte{
			"gone":        nil,
			"empty":       func([]byte) []byte { return []byte{} },
			"cut":         func(b []byte) []byte { return b[:len(b)-1] },
			"cut in head": func(b []byte) []byte { return b[:headSize+3] },
			"longer":      func(b []byte) []byte { return append(b, 0) },
			"magic":       func(b []byte) []byte { b[0] ^= 1; return b },
			"meta length": func(b []byte) []byte { b[len(magic)] ^= 1; return b },
			"body":        func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"other":       func(b []byte) []byte { return bytes.Repeat([]byte{7}, len(b)) },
		} {
			t.Run(fmt.Sprintf("%s %d", name, len(body)), func(t *testing.T) {
				root := t.TempDir()
				r := newRig(t, diskZone(root))
				r.clock = time.Now()
				p := r.plugin("disk", "")
				r.ask(p, "GET /", says(body, "Cache-Control: max-age=1000"))
				path := files(t, root)[0]
				raw, err := os.ReadFile(path)
				if err == nil && damage == nil {
					err = os.Remove(path)
				} else if err == nil {
					err = os.WriteFile(path, damage(raw), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				found := name == "body" // the rest is seen at the start
				again := restart(t, diskZone(root))
				if n := again.cache.zones["disk"].number.Load(); n != 0 != found {
					t.Errorf("a restart has found %d answers", n)
				}
				got := r.ask(p, "GET /", says("new"))
				if found && len(body) > readSize {
					if !strings.HasPrefix(got, "broken off") {
						t.Errorf("a damaged body looks complete: %d bytes", len(got))
					}
					got = r.ask(p, "GET /", says("new"))
				}
				if got != "200 MISS new" {
					t.Errorf("answer %.40q", got)
				}
				r.expect(p, "GET /", nil, "200 HIT new")
			})
		}
	}
}

// A disk that takes nothing costs the answers nothing, and is told of once.
func TestFullDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(root, nil, 0o600); err != nil { // a file where a directory should be
		t.Fatal(err)
	}
	r := newRig(t, diskZone(root))
	p := r.plugin("disk", "")
	for range 3 {
		r.expect(p, "GET /", says("b"), "200 MISS b")
	}
	z := r.cache.zones["disk"]
	if len(r.log) != 1 || z.lost.Value() != 3 || z.recording.Load() != 0 {
		t.Errorf("logged %d times, lost %d, recording %d", len(r.log), z.lost.Value(), z.recording.Load())
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	r.expect(p, "GET /", says("b"), "200 MISS b")
	r.expect(p, "GET /", nil, "200 HIT b")
	if len(r.log) != 2 {
		t.Errorf("logged %d times", len(r.log))
	}
}

// Without a free worker an answer is not kept, and nobody waits.
func TestNoWorker(t *testing.T) {
	r := newRig(t, diskZone(t.TempDir()))
	z := r.cache.zones["disk"]
	free := z.background
	z.background = func(func()) bool { return false }
	p := r.plugin("disk", "")
	r.expect(p, "GET /", says("b"), "200 MISS b")
	r.expect(p, "GET /", says("c"), "200 MISS c")
	if z.lost.Value() != 2 || z.recording.Load() != 0 {
		t.Errorf("lost %d, recording %d", z.lost.Value(), z.recording.Load())
	}
	z.background = free
	r.expect(p, "GET /", says("d"), "200 MISS d")
	z.background = func(func()) bool { return false }
	r.expect(p, "PURGE /", nil, "200") // that must happen
	if left := files(t, z.Path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Memory is bounded in bytes, and what was used last stays.
func TestBound(t *testing.T) {
	r := newRig(t, Zone{Name: "memory", Memory: 100_000})
	p := r.plugin("memory", "")
	z := r.cache.zones["memory"]
	body := strings.Repeat("x", 1000)
	r.expect(p, "GET /used", says("kept"), "200 MISS kept")
	for i := range 1000 {
		r.ask(p, fmt.Sprintf("GET /%d", i), says(body))
		if n := z.memory.Load(); n > z.Memory {
			t.Fatalf("%d bytes of %d", n, z.Memory)
		}
		r.expect(p, "GET /used", nil, "200 HIT kept")
	}
	if n := z.number.Load(); n < 40 || z.counters.evicted.Value() != uint64(1001-n) {
		t.Errorf("%d answers are kept, %d were evicted", n, z.counters.evicted.Value())
	}
	large := strings.Repeat("x", 100_000)
	r.expect(p, "GET /large", says(large), "200 MISS "+large)
	r.expect(p, "GET /large", says(large), "200 MISS "+large)
	r.expect(p, "GET /used", nil, "200 HIT kept")
	// Nothing is lost or counted twice when everything goes.
	r.expect(p, "PURGE /used", nil, "200")
	for i := range 1000 {
		r.ask(p, fmt.Sprintf("PURGE /%d", i), nil)
	}
	if z.memory.Load() != 0 || z.number.Load() != 0 {
		t.Errorf("%d answers, %d bytes are left", z.number.Load(), z.memory.Load())
	}
	for i := range z.shards {
		if n := len(z.shards[i].nodes); n != 0 {
			t.Errorf("shard %d has %d keys", i, n)
		}
	}
}

// What is being recorded is bounded, too; an answer beyond that passes.
func TestRecordingIsBounded(t *testing.T) {
	r := newRig(t, Zone{Name: "memory", Memory: 100_000})
	p := r.plugin("memory", "")
	z := r.cache.zones["memory"]
	z.recording.Add(90_000)
	long := strings.Repeat("x", 20_000)
	r.expect(p, "GET /a", says(long), "200 MISS "+long)
	r.expect(p, "GET /a", streams(io.EOF, -1, long), "200 MISS "+long)
	r.expect(p, "GET /a", streams(io.EOF, 20_000, long), "200 MISS "+long)
	r.expect(p, "GET /a", streams(io.EOF, -1, "s", "hort"), "200 MISS short")
	if n := z.recording.Load(); n != 90_000 {
		t.Errorf("%d", n)
	}
	z.recording.Add(-90_000)
	r.expect(p, "GET /a", says(long), "200 MISS "+long)
	r.expect(p, "GET /a", nil, "200 HIT "+long)
}

// Many at a time, with purges and evictions between them: every answer is the one to its own request.
func TestManyAtATime(t *testing.T) {
	for _, z := range []Zone{{Name: "memory", Memory: 40_000}, {Name: "disk", Memory: 1 << 20, Disk: 20_000, Path: t.TempDir(), Levels: []int{2}}} {
		r := newRig(t, z)
		p := r.plugin(z.Name, "")
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for i := range 300 {
					path := fmt.Sprintf("/%d", (i*7+g)%50)
					method := "GET "
					if i%29 == g {
						method = "PURGE "
					}
					x := r.exchange(method + path)
					mine := &rig{env: r.env}
					got := mine.run(x, p, func(x *phase.Exchange) { says("body of "+path, "Vary: X")(x) })
					if method == "GET " && got != "200 MISS body of "+path && got != "200 HIT body of "+path {
						t.Errorf("%s%s: %q", method, path, got)
					}
				}
			})
		}
		all.Wait()
		zone := r.cache.zones[z.Name]
		var memory, disk, number int64
		for i := range zone.shards {
			for _, n := range zone.shards[i].nodes {
				for _, e := range n.entries {
					memory, disk, number = memory+e.memory(), disk+e.disk(), number+1
				}
			}
		}
		if memory != zone.memory.Load() || disk != zone.index.disk.Load() || number != zone.number.Load() || zone.recording.Load() != 0 {
			t.Errorf("%s: counted %d, %d, %d; there are %d, %d, %d", z.Name, zone.memory.Load(), zone.index.disk.Load(), zone.number.Load(), memory, disk, number)
		}
		if z.Path != "" {
			if list := files(t, z.Path); int64(len(list)) != number {
				t.Errorf("%d files for %d answers", len(list), number)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t, Zone{Name: "memory", Memory: 1 << 20})
	p := r.plugin("memory", "")
	r.ask(p, "GET /", says("body"))
	r.ask(p, "GET /", nil)
	r.ask(p, "GET /", nil)
	var text bytes.Buffer
	if err := r.meter.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`headgate_cache_requests_total{zone="memory",status="hit"} 2`,
		`headgate_cache_requests_total{zone="memory",status="miss"} 1`,
		`headgate_cache_served_bytes_total{zone="memory"} 8`,
		`headgate_cache_entries{zone="memory"} 1`,
		`headgate_cache_bytes{zone="memory",where="memory"} 5`,
		`# HELP headgate_cache_evictions_total `,
	} {
		if !strings.Contains(text.String(), "\n"+want) {
			t.Errorf("no line %s", want)
		}
	}
}
