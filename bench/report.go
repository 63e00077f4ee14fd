package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is a finished comparison, as written to a file.
type result struct {
	Machine  machine        `json:"machine"`
	Settings settings       `json:"settings"`
	Targets  []targetResult `json:"targets"`
	// Chain is what the chain of plugins costs over the bare route, of each round, then the median; nil without both.
	Chain *spread `json:"chain_to_bare,omitempty"`
}

type targetResult struct {
	Name     string   `json:"name"`
	Version  string   `json:"version,omitempty"`
	CPU      spread   `json:"cpu_us_per_request"`
	Ratio    *spread  `json:"ratio_to_floor,omitempty"` // of each round, then the median; nil without the floor
	Rate     spread   `json:"requests_per_second"`
	P50      spread   `json:"p50_us"`
	P99      spread   `json:"p99_us"`
	Errors   uint64   `json:"errors"`
	Problems []string `json:"problems,omitempty"`
	Samples  []sample `json:"samples"`
}

// spread sums up one figure over all rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// newSpread takes at least one value.
func newSpread(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

func newResult(s settings, m machine, targets []*target) result {
	r := result{Machine: m, Settings: s}
	var floor, bare, chain []sample
	for _, t := range targets {
		switch t.name {
		case s.Floor:
			floor = t.samples
		case bareName:
			bare = t.samples
		case chainName:
			chain = t.samples
		}
	}
	if len(bare) > 0 && len(chain) > 0 {
		ratios := make([]float64, len(chain))
		for i := range chain {
			ratios[i] = chain[i].cpuPerRequest() / bare[i].cpuPerRequest()
		}
		ratio := newSpread(ratios)
		r.Chain = &ratio
	}
	for _, t := range targets {
		tr := targetResult{Name: t.name, Version: t.version, Samples: t.samples}
		each := func(f func(i int, s sample) float64) spread {
			values := make([]float64, len(t.samples))
			for i, s := range t.samples {
				values[i] = f(i, s)
			}
			return newSpread(values)
		}
		tr.CPU = each(func(_ int, s sample) float64 { return s.cpuPerRequest() })
		tr.Rate = each(func(_ int, s sample) float64 { return float64(s.Requests) / s.Wall.Seconds() })
		tr.P50 = each(func(_ int, s sample) float64 { return float64(s.P50.Microseconds()) })
		tr.P99 = each(func(_ int, s sample) float64 { return float64(s.P99.Microseconds()) })
		if len(floor) > 0 {
			ratio := each(func(i int, s sample) float64 { return s.cpuPerRequest() / floor[i].cpuPerRequest() })
			tr.Ratio = &ratio
		}
		for i, s := range t.samples {
			tr.Errors += s.Counts.Errors()
			if s.Problem != "" {
				tr.Problems = append(tr.Problems, fmt.Sprintf("round %d: %s", i+1, s.Problem))
			}
		}
		r.Targets = append(r.Targets, tr)
	}
	return r
}

func (r result) print(w io.Writer) error {
	m, s := r.Machine, r.Settings
	gomaxprocs := "unset"
	if s.GoMaxProcs > 0 {
		gomaxprocs = fmt.Sprint(s.GoMaxProcs)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d cores, Linux %s, %s, load average at start %s\n", m.CPU, m.Cores, m.Kernel, m.Go, m.Load)
	fmt.Fprintf(&b, "%d rounds of %v after %v of warm-up, %d connections, %d worker(s) per peer, GOMAXPROCS %s, access logs %s, ratios to %s\n\n",
		s.Rounds, s.Duration, s.Warmup, s.Conns, s.Workers, gomaxprocs, map[bool]string{true: "on", false: "as configured"}[s.Log], s.Floor)
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "target\tCPU µs/req\tmin..max\tratio\tmin..max\treq/s\tp50 µs\tp99 µs\terrors\t")
	for _, t := range r.Targets {
		ratio, span := "-", "-"
		if t.Ratio != nil {
			ratio, span = fmt.Sprintf("%.2f", t.Ratio.Median), fmt.Sprintf("%.2f..%.2f", t.Ratio.Min, t.Ratio.Max)
		}
		fmt.Fprintf(tw, "%s\t%.1f\t%.1f..%.1f\t%s\t%s\t%.0f\t%.0f\t%.0f\t%d\t\n",
			t.Name, t.CPU.Median, t.CPU.Min, t.CPU.Max, ratio, span, t.Rate.Median, t.P50.Median, t.P99.Median, t.Errors)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	b.WriteString("\n")
	if c := r.Chain; c != nil {
		fmt.Fprintf(&b, "%s costs %.2f (%.2f..%.2f) of %s\n\n", chainName, c.Median, c.Min, c.Max, bareName)
	}
	for _, t := range r.Targets {
		if t.Version != "" {
			fmt.Fprintf(&b, "%s: %s\n", t.Name, t.Version)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// verdict is an error when a target did not do its work, or when headgate's
// median ratio is above limit (0: no limit).
func (r result) verdict(limit float64) error {
	var errs []error
	checked := limit == 0
	for _, t := range r.Targets {
		for _, p := range t.Problems {
			errs = append(errs, fmt.Errorf("%s: %s", t.Name, p))
		}
		if limit > 0 && t.Name == checkedName && t.Ratio != nil {
			checked = true
			if t.Ratio.Median > limit {
				errs = append(errs, fmt.Errorf("%s: median ratio %.3f is above %.2f", t.Name, t.Ratio.Median, limit))
			}
		}
	}
	if !checked {
		errs = append(errs, fmt.Errorf("-check needs both %s and %s among the targets", checkedName, r.Settings.Floor))
	}
	return errors.Join(errs...)
}

// chainVerdict is an error when the median ratio of the chain to the bare route is above limit (0: no limit).
func (r result) chainVerdict(limit float64) error {
	switch {
	case limit == 0:
		return nil
	case r.Chain == nil:
		return fmt.Errorf("-check-chain needs both %s and %s among the targets", chainName, bareName)
	case r.Chain.Median > limit:
		return fmt.Errorf("%s: median ratio %.3f to %s is above %.2f", chainName, r.Chain.Median, bareName, limit)
	}
	return nil
}

// writeJSON writes v to bench/results/<name>.json, or to name itself when that
// is a path. An empty name writes nothing.
func writeJSON(name string, v any) error {
	if name == "" {
		return nil
	}
	if !strings.ContainsRune(name, filepath.Separator) {
		name = filepath.Join("bench", "results", name+".json")
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
