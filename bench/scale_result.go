package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"headgate/bench/load"
)

// scaleResult is a finished run at scale, as written to a file.
type scaleResult struct {
	Machine  machine       `json:"machine"`
	Settings scaleSettings `json:"settings"`
	Version  string        `json:"version"`
	Figures  []figure      `json:"figures"`
	Problems []string      `json:"problems,omitempty"` // what the gateway did wrong
}

// figure is one measured value. Limit, when not 0, is the most that it may be.
type figure struct {
	Step  string  `json:"step"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // ms, s, bytes, /s
	Limit float64 `json:"limit,omitempty"`
}

func (f figure) missed() bool { return f.Limit > 0 && f.Value > f.Limit }

func (f figure) text(v float64) string {
	switch {
	case f.Unit == "bytes":
		return fmt.Sprintf("%.0f B", v)
	case f.Unit == "/s":
		return fmt.Sprintf("%.0f/s", v)
	case f.Unit == "MiB":
		return fmt.Sprintf("%.0f MiB", v)
	}
	return fmt.Sprintf("%.2f %s", v, f.Unit)
}

func (r *scaleResult) add(f figure) { r.Figures = append(r.Figures, f) }

func (r *scaleResult) milliseconds(step, name string, d, limit time.Duration) {
	r.add(figure{Step: step, Name: name, Value: inMilliseconds(d), Unit: "ms", Limit: inMilliseconds(limit)})
}

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// latencies adds the quantiles that tell whether anything stalled. limit is that of p99.
func (r *scaleResult) latencies(step, name string, h *load.Histogram, limit time.Duration) {
	r.milliseconds(step, name+" p50", h.Quantile(0.5), 0)
	r.milliseconds(step, name+" p99", h.Quantile(0.99), limit)
	r.milliseconds(step, name+" p99.9", h.Quantile(0.999), 0)
	r.milliseconds(step, name+" max", h.Quantile(1), 0)
}

func (r *scaleResult) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *scaleResult) print(out io.Writer) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	s := r.Settings
	fmt.Fprintf(tw, "\n%s, %d cores, Linux %s, %s, load average at start %s\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.Load)
	fmt.Fprintf(tw, "%s; %d routes on %d hosts, %d consumers; %d requests/s, %d edits/s\n\n",
		r.Version, s.Routes, s.Hosts, s.Consumers, s.Load, s.Rate)
	for _, f := range r.Figures {
		limit := ""
		if f.Limit > 0 {
			limit = "at most " + f.text(f.Limit)
		}
		if f.missed() {
			limit += "  MISSED"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", f.Step, f.Name, f.text(f.Value), limit)
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

// verdict is an error when the gateway did something wrong or missed a limit.
func (r *scaleResult) verdict() error {
	var errs []error
	for _, p := range r.Problems {
		errs = append(errs, errors.New(p))
	}
	for _, f := range r.Figures {
		if f.missed() {
			errs = append(errs, fmt.Errorf("%s: %s is %s, at most %s was asked for", f.Step, f.Name, f.text(f.Value), f.text(f.Limit)))
		}
	}
	return errors.Join(errs...)
}
