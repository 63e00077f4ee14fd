package main

import (
	"os"
	"runtime"
	"strings"
	"time"
)

// machine is where a result was measured: figures of two machines don't compare.
type machine struct {
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Load    string    `json:"load_average_at_start"` // 1, 5, 15 minutes: what else was running
	Started time.Time `json:"started"`
}

func thisMachine() machine {
	info, _ := os.ReadFile("/proc/cpuinfo") // facts that can't be read are reported as unknown
	m := machine{
		CPU: "unknown", Cores: runtime.NumCPU(), Kernel: firstLine("/proc/sys/kernel/osrelease"),
		Go: runtime.Version(), Load: "unknown", Started: time.Now().UTC().Truncate(time.Second),
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	if f := strings.Fields(firstLine("/proc/loadavg")); len(f) >= 3 {
		m.Load = strings.Join(f[:3], " ")
	}
	return m
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
