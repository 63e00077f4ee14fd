package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc/<pid>/stat: USER_HZ, which the
// kernel's interface fixes at 100 on every architecture Go runs on but Alpha.
const tick = 10 * time.Millisecond

// procStat is the part of /proc/<pid>/stat (proc_pid_stat(5)) that CPU accounting needs.
type procStat struct {
	pid, parent int
	cpu         time.Duration // of the process and of its children that were waited for
}

// parseStat parses one line of /proc/<pid>/stat. The second field is the
// program's name in parentheses, which may itself hold spaces and parentheses.
func parseStat(line string) (procStat, error) {
	first, rest, ok := strings.Cut(line, " (")
	after := strings.LastIndexByte(rest, ')')
	if !ok || after < 0 {
		return procStat{}, fmt.Errorf("stat line without a program name: %q", line)
	}
	const parent, utime, fields = 1, 11, 15 // counted from the state field
	f := strings.Fields(rest[after+1:])
	if len(f) < fields {
		return procStat{}, fmt.Errorf("stat line of %d fields: %q", len(f), line)
	}
	var s procStat
	var err error
	if s.pid, err = strconv.Atoi(first); err != nil {
		return procStat{}, fmt.Errorf("stat line: pid: %w", err)
	}
	if s.parent, err = strconv.Atoi(f[parent]); err != nil {
		return procStat{}, fmt.Errorf("stat line: parent: %w", err)
	}
	for _, v := range f[utime:fields] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("stat line: CPU time: %w", err)
		}
		s.cpu += time.Duration(n) * tick
	}
	return s, nil
}

// treeCPU returns the CPU time, user and system, that a process and all its
// descendants have used so far. Descendants that ended are included once their
// parent has waited for them.
func treeCPU(root int) (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var all []procStat
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it ended meanwhile
		}
		s, err := parseStat(string(b))
		if err != nil {
			return 0, err
		}
		all = append(all, s)
	}
	return sumTree(all, root)
}

var errNoProcess = errors.New("no such process")

func sumTree(all []procStat, root int) (time.Duration, error) {
	children := make(map[int][]procStat, len(all))
	var total time.Duration
	found := false
	for _, s := range all {
		children[s.parent] = append(children[s.parent], s)
		if s.pid == root {
			total, found = s.cpu, true
		}
	}
	if !found {
		return 0, fmt.Errorf("%w: %d", errNoProcess, root)
	}
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for _, c := range children[next[0]] {
			total += c.cpu
			next = append(next, c.pid)
		}
	}
	return total, nil
}
