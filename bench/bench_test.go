package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/bench/load"
	"headgate/bench/upstream"
)

// The rig runs parts of itself as children: the test binary has to do the same.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// A whole comparison of the two relays, in real processes.
func TestCompareRelays(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	file := filepath.Join(t.TempDir(), "out.json")
	var out strings.Builder
	err := run(t.Context(), []string{"-targets", "relay,relay-epoll", "-rounds", "3", "-duration", "120ms", "-warmup", "20ms", "-conns", "4", "-out", file}, &out, io.Discard)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "1.00..1.00") {
		t.Errorf("no ratio of the relay to itself in\n%s", out.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Targets) != 2 || len(r.Targets[0].Samples) != 3 || r.Targets[0].CPU.Median <= 0 || r.Targets[0].P99.Median <= 0 {
		t.Errorf("result %+v", r)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// An interrupt in the middle of a measurement ends the run and everything it started.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := run(ctx, []string{"-targets", "relay", "-duration", "1h"}, io.Discard, io.Discard)
	if err == nil {
		t.Fatal("an interrupted run is a success")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestProcessStops(t *testing.T) {
	r, err := newRig()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.startSelf(t.Context(), "upstream", nil); err != nil {
		t.Fatal(err)
	}
	p := r.processes[0]
	if err := p.alive(); err != nil {
		t.Fatal(err)
	}
	r.close()
	if p.alive() == nil {
		t.Error("the process survived its rig")
	}
	if _, err := treeCPU(p.cmd.Process.Pid); err == nil {
		t.Error("the process is still in /proc")
	}
	if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// What a program says when it can't start reaches the user at once.
func TestProcessFailsToStart(t *testing.T) {
	r, err := newRig()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	_, err = r.start(t.Context(), "broken", "127.0.0.1:1", []string{"sh", "-c", "echo bad config >&2; exit 3"}, nil)
	if err == nil || !strings.Contains(err.Error(), "bad config") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range []string{
		"-rounds 0", "-floor nginx", "-duration 10ms", "-conns 0", "-targets relay,apache", "-targets headgate -headgate /nonexistent",
		"-nonsense", "extra", "relay", "storm -rate 0", "storm -duration 0s", "storm extra", "storm -headgate /nonexistent",
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestChatRequest(t *testing.T) {
	header, body, _ := strings.Cut(string(chatRequest("127.0.0.1:1")), "\r\n\r\n")
	if len(body) != 300 || !json.Valid([]byte(body)) {
		t.Errorf("body of %d bytes: %s", len(body), body)
	}
	for _, want := range []string{"POST /chat/completions HTTP/1.1\r\n", "Host: 127.0.0.1:1\r\n", "Authorization: Bearer ", "Content-Length: 300"} {
		if !strings.Contains(header, want) {
			t.Errorf("no %q in\n%s", want, header)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{9, 1}, spread{5, 1, 9}},
		{[]float64{5, 1, 100}, spread{5, 1, 100}},
		{[]float64{4, 1, 2, 100}, spread{3, 1, 100}},
	} {
		if got := newSpread(tt.values); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.values, got, tt.want)
		}
	}
}

func cpuSample(us int) sample {
	return sample{Requests: 10, CPU: time.Duration(us*10) * time.Microsecond, Wall: time.Second}
}

// The ratio is taken within each round: a round in which the whole machine was
// slow must not count against anybody.
func TestRatioPerRound(t *testing.T) {
	floor := &target{name: relayName, samples: []sample{cpuSample(10), cpuSample(40), cpuSample(20)}}
	gate := &target{name: checkedName, samples: []sample{cpuSample(15), cpuSample(64), cpuSample(34)}}
	r := newResult(settings{Floor: relayName}, machine{}, []*target{gate, floor})
	if got := *r.Targets[0].Ratio; got != (spread{1.6, 1.5, 1.7}) {
		t.Errorf("ratio %+v", got)
	}
	if got := r.Targets[0].CPU; got != (spread{34, 15, 64}) {
		t.Errorf("CPU %+v", got)
	}
	for limit, ok := range map[float64]bool{0: true, 1.59: false, 1.6: true, 1.7: true} {
		if err := r.verdict(limit); (err == nil) != ok {
			t.Errorf("limit %v: %v", limit, err)
		}
	}
	alone := newResult(settings{Floor: relayName}, machine{}, []*target{gate})
	if alone.Targets[0].Ratio != nil || alone.verdict(0) != nil || alone.verdict(2) == nil {
		t.Errorf("without the relay there is no ratio to check: %+v", alone.Targets[0])
	}
	var b strings.Builder
	if err := r.print(&b); err != nil || !strings.Contains(b.String(), "1.60  1.50..1.70") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestProblem(t *testing.T) {
	ok := sample{Requests: 90, Counts: load.Counts{Done: 100}}
	lost := ok
	lost.Counts.Reset = 1
	tests := map[string]struct {
		splits bool
		s      sample
		seen   upstream.Counts
		bad    bool
	}{
		"plain":               {false, ok, upstream.Counts{Other: 100}, false},
		"split":               {true, ok, upstream.Counts{V1: 51, V2: 49}, false},
		"split unevenly":      {true, ok, upstream.Counts{V1: 52, V2: 48}, true},
		"not split":           {true, ok, upstream.Counts{Other: 100}, true},
		"answered by itself":  {false, ok, upstream.Counts{Other: 99}, true},
		"asked twice":         {false, ok, upstream.Counts{Other: 101}, false},
		"one lost":            {false, lost, upstream.Counts{Other: 101}, true},
		"nothing in the time": {false, sample{}, upstream.Counts{}, true},
	}
	for name, tt := range tests {
		if got := problem(&target{splits: tt.splits}, tt.s, tt.seen); (got != "") != tt.bad {
			t.Errorf("%s: %q", name, got)
		}
	}
	r := newResult(settings{}, machine{}, []*target{{name: "x", samples: []sample{{Requests: 1, Problem: "broken"}}}})
	if err := r.verdict(0); err == nil || !strings.Contains(fmt.Sprint(err), "x: round 1: broken") {
		t.Errorf("verdict %v", err)
	}
}

// The chain is compared with the bare route round by round.
func TestChainRatio(t *testing.T) {
	of := func(name string, micros ...time.Duration) *target {
		tg := &target{name: name}
		for _, m := range micros {
			tg.samples = append(tg.samples, sample{Requests: 100, CPU: 100 * m * time.Microsecond, Wall: time.Second})
		}
		return tg
	}
	r := newResult(settings{Floor: relayName}, machine{}, []*target{of(bareName, 20, 40, 20), of(chainName, 22, 42, 30)})
	if r.Chain == nil || r.Chain.Median != 1.1 || r.Chain.Max != 1.5 {
		t.Fatalf("ratio %+v", r.Chain)
	}
	for limit, ok := range map[float64]bool{0: true, 1.15: true, 1.05: false} {
		if err := r.chainVerdict(limit); (err == nil) != ok {
			t.Errorf("limit %v: %v", limit, err)
		}
	}
	var out strings.Builder
	if err := r.print(&out); err != nil || !strings.Contains(out.String(), "headgate-chain costs 1.10 (1.05..1.50) of headgate-bare") {
		t.Errorf("%v\n%s", err, out.String())
	}
	alone := newResult(settings{Floor: relayName}, machine{}, []*target{of(chainName, 22)})
	if alone.Chain != nil || alone.chainVerdict(1.15) == nil || alone.chainVerdict(0) != nil {
		t.Error("a ratio to a target that was not measured")
	}
}
