package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tail := " 0 0 20 0 1 0 5 6 7"
	tests := map[string]struct {
		line string
		want procStat // zero: an error
	}{
		"plain":          {"42 (nginx) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1" + tail, procStat{42, 7, 1240 * time.Millisecond}},
		"odd name":       {"42 (a) R (b c) S 7 42 42 0 -1 4194560 1 2 3 4 1 0 0 0" + tail, procStat{42, 7, 10 * time.Millisecond}},
		"name of digits": {"42 (1 2 3) S 7 42 42 0 -1 4194560 1 2 3 4 0 1 0 0" + tail, procStat{42, 7, 10 * time.Millisecond}},
		"cut":            {"42 (nginx) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3", procStat{}},
		"no name":        {"42 nginx S 7", procStat{}},
		"no number":      {"42 (nginx) S 7 42 42 0 -1 4194560 1 2 3 4 x 20 3 1" + tail, procStat{}},
		"empty":          {"", procStat{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(tt.line)
			if (err != nil) != (tt.want == procStat{}) || (err == nil && got != tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (nginx) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 0 0")
	f.Add("1 ()")
	f.Add(") (")
	f.Fuzz(func(t *testing.T, line string) {
		if _, err := parseStat(line); err == nil && !strings.Contains(line, " (") {
			t.Errorf("%q accepted", line)
		}
	})
}

func TestSumTree(t *testing.T) {
	all := []procStat{{5, 2, 16}, {1, 0, 1}, {2, 1, 2}, {4, 2, 8}, {3, 1, 4}, {6, 5, 32}}
	for root, want := range map[int]time.Duration{1: 63, 2: 58, 3: 4, 6: 32} {
		if got, err := sumTree(all, root); err != nil || got != want {
			t.Errorf("root %d: %d, %v; want %d", root, got, err, want)
		}
	}
	if _, err := sumTree(all, 7); !errors.Is(err, errNoProcess) {
		t.Errorf("a process that is gone: %v", err)
	}
}

// The work of a grandchild counts, running and after it ended.
func TestTreeCPUOfRealProcesses(t *testing.T) {
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo worked; read x; :' ; echo ended; read x; :`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	var last time.Duration
	for _, want := range []string{"worked\n", "ended\n"} {
		b := make([]byte, len(want))
		if _, err := out.Read(b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v", b, err)
		}
		now, err := treeCPU(cmd.Process.Pid)
		if err != nil || now < tick || now < last {
			t.Fatalf("%q: %v of CPU, %v; want at least %v", want, now, err, max(last, tick))
		}
		last = now
		in.Write([]byte("\n"))
	}
	if _, err := treeCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
}
